"""A run that starts from a checkpoint: what is wrong with it is said before the data is prepared."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from atoll import recipe
from atoll.errors import UserError
from atoll.model import hf
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS, read_config, resolve
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare, write_state_0

CONFIG = msgspec.structs.replace(
    PRESETS["demo"], vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8
)
TIED = msgspec.structs.replace(CONFIG, tie_word_embeddings=True)
FOREIGN = transformers.GPT2Config(
    vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
)


def llama(directory: Path, config=CONFIG, **tensors) -> Path:
    """A checkpoint; `tensors`: None leaves one out."""
    model = Llama(config)
    model.init_weights(0)
    directory.mkdir()
    state = {**model.state_dict(), **{name.replace("__", "."): value for name, value in tensors.items()}}
    hf.save(directory, config, {name: value for name, value in state.items() if value is not None})
    return directory


def foreign(directory: Path) -> Path:
    transformers.AutoModelForCausalLM.from_config(FOREIGN).save_pretrained(directory)
    return directory


def poison(directory: Path, value: float) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "norm" in name or "ln_f" in name)
    tensors[name][0] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("make", [llama, foreign])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, make, value):
    directory = make(tmp_path / "base")
    poison(directory, value)
    with pytest.raises(UserError, match=r"base: \S+ has weights that are NaN or infinite"):
        hf.open_model(directory)


EMBEDDINGS = torch.ones(300, 16)
WRONG = {
    "a renamed tensor": (
        CONFIG,
        {"model__norm__weight": None, "model__ln_f__weight": torch.ones(16)},
        "has no model.norm.weight and does not expect model.ln_f.weight",
    ),
    "tensors without the prefix": (
        CONFIG,
        {"model__embed_tokens__weight": None, "embed_tokens__weight": EMBEDDINGS},
        "has no model.embed_tokens.weight and does not expect embed_tokens.weight",
    ),
    "another shape of the same size": (
        CONFIG,
        {"lm_head__weight": torch.ones(16, 300)},
        "has in another shape lm_head.weight",
    ),
    "numbers that are no weights": (
        CONFIG,
        {"lm_head__weight": torch.ones(300, 16, dtype=torch.int8)},
        "has quantised lm_head.weight",
    ),
    "a tied head that is another tensor": (TIED, {"lm_head__weight": EMBEDDINGS}, "config.json ties"),
    "no head, where it is not tied": (CONFIG, {"lm_head__weight": None}, "parameters where config.json"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_tensors_that_are_not_those_of_the_config_are_named(tmp_path, wrong):
    config, tensors, message = WRONG[wrong]
    with pytest.raises(UserError, match=message):
        hf.open_model(llama(tmp_path / "base", config, **tensors))


def test_a_tied_head_may_be_stored_in_the_place_of_the_embeddings(tmp_path):
    directory = llama(
        tmp_path / "base", TIED, model__embed_tokens__weight=None, lm_head__weight=EMBEDDINGS.clone()
    )
    assert torch.equal(hf.open_model(directory).head_weight, EMBEDDINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": [1]}, "its rope parameters are no object"),
        ({"num_key_value_heads": 3}, "config.json: model.num_key_value_heads: must divide"),
        ({"hidden_size": "many", "head_dim": None}, r"config\.json: "),
        ({"hidden_size": 17, "head_dim": None}, r"config\.json: model.hidden_size: must be a multiple"),
    ],
)
def test_a_config_that_describes_no_model_is_named(tmp_path, change, message):
    directory = llama(tmp_path / "base")
    path = directory / "config.json"
    path.write_text("\ufeff" + json.dumps(json.loads(path.read_text()) | change), "utf-8")
    with pytest.raises(UserError, match=message):
        read_config(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (llama(tmp_path / "base") / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=f"{name}: a Git LFS pointer"):
        hf.open_model(tmp_path / "base")


def test_a_checkpoint_in_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    llama(tmp_path / "base")
    assert resolve(recipe.Model(from_="~/base"), 300) == read_config(tmp_path / "base")
    assert len(hf.build(recipe.Model(from_="~/base"), 300).head_weight) == 300


def run_from(folder: Path, **changes) -> recipe.Recipe:
    (folder / "a.txt").write_text("once upon a time there were whales " * 200)
    tree = {
        "name": "test",
        "model": {"from": "~/base"},
        "tokenizer": {"train": 270},
        "sources": {"s": {"text": str(folder / "a.txt")}},
        "stage": [{"until": 4, "mixture": {"s": 1}}],
        "inner": {"context_length": 64, "tokens_per_step": 64},
        "outer": {"inner_steps": 2},
    }
    return recipe.parse(tree | changes, "test")


@pytest.mark.parametrize("make", [llama, foreign])
def test_a_base_model_is_looked_at_before_the_data(tmp_path, monkeypatch, make):
    monkeypatch.setenv("HOME", str(tmp_path))
    poison(make(tmp_path / "base"), float("nan"))
    with pytest.raises(UserError, match="NaN or infinite"):
        prepare(run_from(tmp_path), RunDir(tmp_path / "run"), lambda _: None)
    assert not (tmp_path / "run").exists()


def test_windows_that_a_base_model_cannot_read_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    foreign(tmp_path / "base")
    with pytest.raises(UserError, match=r"inner.context_length = 64: ~/base reads at most 32 tokens"):
        prepare(run_from(tmp_path), RunDir(tmp_path / "run"), lambda _: None)


def test_a_module_of_ones_own_cannot_start_from_nothing_that_is_a_number(tmp_path):
    with pytest.raises(UserError, match="state 0: w has values that are NaN or infinite"):
        write_state_0(RunDir(tmp_path), {"w": torch.tensor([1.0, float("nan")])})


@pytest.mark.parametrize(("context_length", "expected"), [(4096, 4096), (64, 2048)])
def test_an_export_gives_the_positions_that_it_was_trained_with(tmp_path, context_length, expected):
    model = Llama(CONFIG)
    hf.save_model(tmp_path, model, context_length=context_length, bos_token_id=0, eos_token_id=None)
    assert read_config(tmp_path).max_position_embeddings == expected
