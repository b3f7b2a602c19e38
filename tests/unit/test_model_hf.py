import json

import msgspec
import pytest
import torch
import transformers

from atoll.errors import UserError
from atoll.model import hf
from atoll.model.attention import Mask
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS, RopeScaling

CONFIG = msgspec.structs.replace(
    PRESETS["demo"], vocab_size=96, hidden_size=32, intermediate_size=48, num_attention_heads=4, head_dim=8
)


def some_model(config=CONFIG) -> Llama:
    model = Llama(config)
    model.init_weights(seed=5)
    return model


@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": True}, {"rope_scaling": RopeScaling(original_max_position_embeddings=32)}],
)
@pytest.mark.parametrize("shard_bytes", [hf.SHARD_BYTES, 10_000])
def test_transformers_loads_what_we_save_with_the_same_logits(tmp_path, changes, shard_bytes):
    model = some_model(msgspec.structs.replace(CONFIG, **changes))
    hf.save(
        tmp_path,
        model.config,
        model.state_dict(),
        bos_token_id=7,
        eos_token_id=[8, 9],
        shard_bytes=shard_bytes,
    )
    assert (tmp_path / hf.INDEX_NAME).exists() == (shard_bytes == 10_000)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (loaded.config.bos_token_id, loaded.generation_config.eos_token_id) == (7, [8, 9])
    tokens = torch.arange(80).view(2, 40)
    with torch.no_grad():
        logits = model(tokens, Mask.causal(2, 40)) @ model.head_weight.T
        assert torch.equal(loaded(tokens).logits, logits)

    config, state_dict = hf.load(tmp_path)
    assert config == model.config
    assert state_dict.keys() == model.state_dict().keys()
    assert all(torch.equal(state_dict[name], value) for name, value in model.state_dict().items())


def test_we_load_what_transformers_saves(tmp_path):
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    dimensions = {k: v for k, v in msgspec.structs.asdict(CONFIG).items() if not k.startswith("rope")}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**dimensions, rope_parameters=rope))
    theirs.save_pretrained(tmp_path)
    config, state_dict = hf.load(tmp_path)
    assert config == CONFIG
    Llama(config).load_state_dict(state_dict)


def test_the_config_has_the_keys_of_transformers_4_and_5(tmp_path):
    config = msgspec.structs.replace(CONFIG, rope_scaling=RopeScaling())
    hf.save(tmp_path, config, some_model().state_dict())
    tree = json.loads((tmp_path / "config.json").read_text())
    assert tree["rope_theta"] == tree["rope_parameters"]["rope_theta"] == 10_000.0
    assert tree["rope_scaling"].items() <= tree["rope_parameters"].items()
    assert tree["rope_scaling"]["rope_type"] == "llama3"
    assert tree["eos_token_id"] is None  # and not Llama-2's 2


def test_a_damaged_checkpoint_is_named(tmp_path):
    model = some_model()
    hf.save(tmp_path, CONFIG, model.state_dict())
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        hf.load(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        hf.load(tmp_path)
    hf.save(tmp_path, msgspec.structs.replace(CONFIG, num_hidden_layers=3), model.state_dict())
    with pytest.raises(UserError, match=r"parameters where config\.json describes"):
        hf.load(tmp_path)
    (tmp_path / hf.INDEX_NAME).write_text("{")
    with pytest.raises(UserError, match=r"index\.json: damaged"):
        hf.load(tmp_path)
