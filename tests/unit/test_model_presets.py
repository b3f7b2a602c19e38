import json
import subprocess
import sys

import pytest

from atoll.errors import UserError
from atoll.model.presets import PRESETS, LlamaConfig, RopeScaling, read_config, resolve
from atoll.recipe import Model


def test_intellect_1_has_exactly_the_originals_parameters():
    assert PRESETS["intellect-1"].num_parameters == 10_211_381_248


def test_presets_have_the_published_numbers_of_parameters():
    assert PRESETS["1b"].num_parameters == 1_235_814_400
    assert PRESETS["3b"].num_parameters == 3_212_749_824
    assert PRESETS["8b"].num_parameters == 8_030_261_248
    assert 0.9e6 < PRESETS["demo"].num_parameters < 1.1e6


def test_overrides_replace_dimensions_and_refit_the_heads():
    config = resolve(
        Model(preset="demo", hidden_size=192, num_attention_heads=6, num_key_value_heads=3), 2000
    )
    assert (config.hidden_size, config.head_dim, config.num_key_value_heads) == (192, 32, 3)
    assert config.intermediate_size == PRESETS["demo"].intermediate_size


@pytest.mark.parametrize(
    ("model", "vocab_size", "message"),
    [
        (Model(preset="llama"), 2048, "no preset is named 'llama'"),
        (Model(preset="demo"), 2049, "tokenizer has 2049 tokens, the model only 2048"),
        (Model(preset="demo", hidden_size=130, num_attention_heads=4), 2048, "multiple of twice"),
        (Model(preset="demo", num_key_value_heads=3), 2048, "must divide"),
        (Model(from_="/nowhere"), 2048, "no such file"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused_in_one_sentence(model: Model, vocab_size: int, message: str):
    with pytest.raises(UserError, match=message):
        resolve(model, vocab_size)


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "model_type": "llama",
}
SCALING = {
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 1e4, "rope_scaling": {"rope_type": "llama3", **SCALING}},
        {"rope_theta": 1e4, "rope_scaling": {"type": "llama3", **SCALING}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "llama3", **SCALING}},
    ],
)
def test_a_config_file_is_read_with_old_rope_keys_and_new(tmp_path, rope):
    (tmp_path / "config.json").write_text(json.dumps(SMALL | rope))
    assert read_config(tmp_path) == LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        max_position_embeddings=128,
        rope_theta=1e4,
        rms_norm_eps=1e-6,
        rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=64),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        (json.dumps(SMALL | {"model_type": "gpt2"}), "model_type is 'gpt2'"),
        (json.dumps(SMALL | {"rope_scaling": {"rope_type": "yarn"}}), "rope_type is 'yarn'"),
        (json.dumps({k: v for k, v in SMALL.items() if k != "vocab_size"}), "vocab_size"),
    ],
)
def test_a_config_file_that_is_no_plain_llama_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path)


def test_presets_do_not_import_torch():
    code = "import sys, atoll.model.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
