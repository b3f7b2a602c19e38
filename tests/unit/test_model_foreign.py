"""Models of transformers that are no plain Llama, from a checkpoint to an export."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import transformers
from unit.islands import Batch, equal, some_batch, some_recipe, take_step, values
from unit.test_island_ranks import environment, free_port

from atoll import recipe
from atoll.errors import UserError
from atoll.island.parallelize import parallelize
from atoll.island.ranks import Ranks
from atoll.island.step import Island
from atoll.model import foreign, hf
from atoll.model.attention import Mask
from atoll.model.foreign import Foreign
from atoll.objective import build

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "qwen2": transformers.Qwen2Config(**SMALL, **SPECIAL, num_key_value_heads=2, pad_token_id=3),
    "tied qwen2": transformers.Qwen2Config(
        **SMALL, **SPECIAL, num_key_value_heads=2, tie_word_embeddings=True
    ),
    "gpt-neox": transformers.GPTNeoXConfig(
        **SMALL, **SPECIAL, max_position_embeddings=64, hidden_dropout=0.5
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    torch.manual_seed(0)
    return {
        name: checkpoint(tmp_path_factory.mktemp("foreign") / "model", config)
        for name, config in CONFIGS.items()
    }


def checkpoint(directory: Path, config: transformers.PretrainedConfig) -> Path:
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)  # so that attention and positions show
    model.save_pretrained(directory)
    return directory


def island_of(directory: Path, **own: object) -> Island:
    described = msgspec.structs.replace(some_recipe(**own), model=recipe.Model(from_=str(directory)))
    return Island(hf.open_model(directory), build(described, 64), described)


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_times_head_are_the_models_logits_and_documents_do_not_see_each_other(
    checkpoints, name
):
    model = hf.open_model(checkpoints[name])
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoints[name], dtype=torch.float32
    ).eval()
    assert isinstance(model, Foreign)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in reference.named_parameters()]
    tokens = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0] * 9 + [1] * 14 + [2], [3] * 24])
    with torch.no_grad():
        hidden = model(tokens, Mask.of_documents(documents))
        logits = hidden @ model.head_weight.T
        for row, start, end in ((0, 0, 9), (0, 9, 23), (0, 23, 24), (1, 0, 24)):
            alone = reference(tokens[row : row + 1, start:end], output_hidden_states=True)
            assert torch.equal(hidden[row, start:end], alone.hidden_states[-1][0])
            torch.testing.assert_close(logits[row, start:end], alone.logits[0], rtol=1e-4, atol=1e-4)
        changed = tokens.clone()
        changed[0, :9] = 5
        others = model(changed, Mask.of_documents(documents)) @ model.head_weight.T
        assert torch.equal(others[0, 9:], logits[0, 9:])
        assert not torch.equal(others[0, :9], logits[0, :9])
        # As one document the second does see the first: the test could fail.
        whole = model(tokens, Mask.causal(2, 24)) @ model.head_weight.T
        assert not torch.allclose(whole[0, 9:23], logits[0, 9:23], atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("optimizer", [recipe.AdamW(lr=1e-3), recipe.Muon()], ids=["adamw", "muon"])
def test_an_island_trains_a_foreign_model_and_exports_what_transformers_loads(
    checkpoints, tmp_path, name, optimizer
):
    first, second = (island_of(checkpoints[name], optimizer=optimizer) for _ in range(2))
    before = values(first)
    losses = [take_step(first, [some_batch()], step).loss for step in range(8)]
    assert losses[-1] < losses[0] - 0.1
    for step in range(8):  # no dropout: the same again, to the bit
        take_step(second, [some_batch()], step)
    assert equal(values(first), values(second))
    for old, new in zip(before, values(first), strict=True):
        assert not torch.equal(old, new), "a parameter was not trained"

    hf.save_model(tmp_path, first.model, context_length=8, bos_token_id=7, eos_token_id=[8, 9])
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert (loaded.config.bos_token_id, loaded.generation_config.eos_token_id) == (7, [8, 9])
    tokens = torch.arange(40).view(1, 40)
    with torch.no_grad():
        ours = first.model(tokens, Mask.causal(1, 40)) @ first.model.head_weight.T
        assert torch.equal(loaded(tokens).logits, ours)


def test_checkpointed_blocks_give_the_same_gradients(checkpoints):
    plain, again = island_of(checkpoints["gpt-neox"]), island_of(checkpoints["gpt-neox"])
    ranks = Ranks.of_torchrun()
    parallelize(
        again.model, ranks.device_mesh(torch.device("cpu")), recipe.Island(activation_checkpointing=True)
    )
    assert take_step(plain, [some_batch()], 0) == take_step(again, [some_batch()], 0)
    assert equal(values(plain), values(again))
    ranks.close()


def test_the_row_of_a_padding_token_is_trained_as_any_other(checkpoints):
    island = island_of(checkpoints["qwen2"])
    before = island.parameters()["model.embed_tokens.weight"][3].clone()
    tokens = np.full((1, 24), 3)
    take_step(island, [Batch(tokens, tokens, np.zeros((1, 24), np.int32))], 0)
    moved = (island.parameters()["model.embed_tokens.weight"][3] - before).abs().max()
    assert moved > 5e-3  # more than weight decay alone would


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            transformers.Gemma2Config(**SMALL, **SPECIAL, num_key_value_heads=2, head_dim=8),
            "a Gemma2ForCausalLM cannot be",
        ),
        (transformers.PhiConfig(**SMALL, **SPECIAL), "a PhiForCausalLM cannot be trained here"),
        (
            transformers.GraniteConfig(**SMALL, **SPECIAL, logits_scaling=8.0),
            "a GraniteForCausalLM cannot be trained here",
        ),
    ],
)
def test_logits_that_are_more_than_hidden_states_times_embeddings_are_refused(tmp_path, config, message):
    checkpoint(tmp_path, config)
    with pytest.raises(UserError, match=message):
        hf.open_model(tmp_path)


def test_what_transformers_cannot_load_is_refused_in_one_sentence(checkpoints, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    for opened in (hf.open_model, foreign.from_config):
        with pytest.raises(UserError, match=r"transformers cannot .* a causal language model") as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)
    checkpoint(tmp_path, CONFIGS["qwen2"])
    whole = hf.load_file(tmp_path / "model.safetensors")
    hf.save_file(
        {n: t for n, t in whole.items() if "layers.1" not in n},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match=r"layers\.1.*missing or of another shape"):
        hf.open_model(tmp_path)
    with pytest.raises(UserError, match="the tokenizer has 65 tokens, the model only 64"):
        hf.build(recipe.Model(from_=str(checkpoints["qwen2"])), 65)


# -------------------------------------------------------------------------------------------------- processes
def one_of_two(rank: int, port: int, directory: str) -> None:
    """One rank, whose windows hold more or fewer documents than the other's; neither may hang."""
    os.environ |= environment(rank, 2, port)
    torch.set_num_threads(1)
    ranks = Ranks.of_torchrun()
    alone = island_of(Path(directory))
    mesh = ranks.device_mesh(torch.device("cpu"))
    model = parallelize(hf.open_model(Path(directory)), mesh, recipe.Island(activation_checkpointing=True))
    island = Island(model, build(some_recipe(), 64), some_recipe(), mesh)
    for step in range(4):
        batch = some_batch(step)
        documents = batch.documents.copy()
        documents[2:] = np.arange(24) // 4
        batch = Batch(batch.tokens, batch.labels, documents)
        ours = take_step(island, [batch.windows(2 * rank, 2 * rank + 2)], step)
        theirs = take_step(alone, [batch], step)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-4)
    ranks.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tied qwen2", "gpt-neox"])
def test_two_ranks_train_a_foreign_model_whatever_documents_each_has(checkpoints, name):
    arguments = free_port(), str(checkpoints[name])
    torch.multiprocessing.start_processes(one_of_two, arguments, nprocs=2, start_method="spawn")


RECIPE = """
name = "tuned"
model.from = "{model}"
tokenizer.train = 320
sources.text = {{ text = "package:books", separator = "\\f" }}
stage = [{{ until = 12, mixture = {{ text = 1 }} }}]
inner = {{ context_length = 64, tokens_per_step = 256 }}
outer = {{ inner_steps = 4, checkpoint_every = 1 }}
island.threads = 1
"""


@pytest.mark.slow
def test_a_run_begins_with_a_foreign_checkpoint_and_ends_with_one(tmp_path):
    config = transformers.Qwen2Config(**SMALL | {"vocab_size": 320}, **SPECIAL, num_key_value_heads=2)
    checkpoint(tmp_path / "base", config)
    (tmp_path / "tuned.toml").write_text(RECIPE.format(model=tmp_path / "base"))
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    for arguments in (
        ["train", str(tmp_path / "tuned.toml"), "--dir", run],
        ["export", run, out],
        ["generate", out, "The"],
    ):
        command = [sys.executable, "-m", "atoll", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("base", "out")
    )
    assert type(after) is transformers.Qwen2ForCausalLM
    moved = [
        not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert all(moved)
