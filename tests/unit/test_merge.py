"""Merges of checkpoints: against closed forms, and against what cannot be merged."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atoll.errors import UserError
from atoll.model import hf
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS
from atoll.post.merge import merge
from atoll.recipe.merge import (
    Breadcrumbs,
    Dare,
    Della,
    Greedy,
    Linear,
    Merge,
    ModelStock,
    Search,
    Slerp,
    TaskArithmetic,
    Ties,
)

TINY = msgspec.structs.replace(
    PRESETS["demo"],
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def checkpoint(path: Path, seed: int, tied: bool = True) -> Path:
    """A tiny Llama with a tokenizer's file and a generation config with two end tokens."""
    torch.manual_seed(seed)
    model = Llama(msgspec.structs.replace(TINY, tie_word_embeddings=tied))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path.mkdir()
    hf.save_model(path, model, context_length=32, bos_token_id=0, eos_token_id=[1, 2])
    vocabulary = {f"t{i}": i for i in range(64)}
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [checkpoint(tmp_path / name, seed) for seed, name in enumerate(("a", "b", "c"))]


def weights(path: Path) -> dict[str, Tensor]:
    return {name: value for file in path.glob("*.safetensors") for name, value in load_file(file).items()}


def test_a_linear_merge_is_the_weighted_mean(models: list[Path], tmp_path: Path) -> None:
    merge(Linear(weights=[1.0, 3.0]), models[:2], tmp_path / "out")
    a, b, out = (weights(path) for path in (*models[:2], tmp_path / "out"))
    for name, value in out.items():
        torch.testing.assert_close(value, 0.25 * a[name] + 0.75 * b[name], rtol=1e-6, atol=1e-7)


def test_task_arithmetic_adds_task_vectors_to_the_base(models: list[Path], tmp_path: Path) -> None:
    method = TaskArithmetic(weights=[0.5, -1.5])
    merge(method, models[:2], tmp_path / "out", base=models[2])
    a, b, c, out = (weights(path) for path in (*models, tmp_path / "out"))
    for name, value in out.items():
        wanted = c[name] + 0.5 * (a[name] - c[name]) - 1.5 * (b[name] - c[name])
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


def test_slerp_goes_along_the_great_circle(models: list[Path], tmp_path: Path) -> None:
    merge(Slerp(t=0.3), models[:2], tmp_path / "out")
    a, b, out = (weights(path) for path in (*models[:2], tmp_path / "out"))
    for name, value in out.items():
        left, right = a[name].double().flatten(), b[name].double().flatten()
        angle = torch.arccos(left @ right / (left.norm() * right.norm()))
        wanted = (torch.sin(0.7 * angle) * left + torch.sin(0.3 * angle) * right) / torch.sin(angle)
        torch.testing.assert_close(value.double().flatten(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [Linear(), Slerp(), TaskArithmetic(), Ties(), Dare(), Della(), Breadcrumbs(), ModelStock()],
    ids=lambda method: method.__struct_config__.tag,
)
def test_a_merge_of_equal_models_is_that_model(method: Merge, models: list[Path], tmp_path: Path) -> None:
    same = [models[0], Path(shutil.copytree(models[0], tmp_path / "same"))]
    base = None if isinstance(method, Linear | Slerp) else Path(shutil.copytree(models[0], tmp_path / "base"))
    merge(method, same, tmp_path / "out", base=base)
    before, after = weights(models[0]), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], rtol=1e-6, atol=1e-7)


def test_what_stands_beside_the_weights_survives(models: list[Path], tmp_path: Path) -> None:
    for name in ("README.md", "facts.json", "map.png", "loss.png"):  # a merge is no state of a run
        (models[0] / name).write_text("of model a")
    merge(Linear(), models[:2], tmp_path / "out", dtype="bf16")
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (models[0] / name).read_bytes()
    for name in ("README.md", "facts.json", "map.png", "loss.png"):
        assert not (tmp_path / "out" / name).exists()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert config["rope_theta"] == TINY.rope_theta and config["rope_parameters"]["rope_theta"]
    assert {value.dtype for value in weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [1, 2]


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_stay_as_they_were(tied: bool, tmp_path: Path) -> None:
    pair = [checkpoint(tmp_path / name, seed, tied) for seed, name in enumerate("ab")]
    merge(Linear(), pair, tmp_path / "out")
    config, state_dict = hf.load(tmp_path / "out")
    assert config.tie_word_embeddings is tied
    assert ("lm_head.weight" in state_dict) is not tied


class FirstWeight:
    """A metric that a test can see through: a mean weight's distance from a target."""

    name, higher_is_better = "distance", False

    def __init__(self, target: float) -> None:
        self.target = target
        self.seen: list[Path] = []

    def __call__(self, path: Path) -> float:
        self.seen.append(path)
        return abs(float(weights(path)["model.norm.weight"].mean()) - self.target)


def constant(path: Path, source: Path, value: float) -> Path:
    """A copy of a checkpoint with all weights `value`."""
    shutil.copytree(source, path)
    tensors = {name: torch.full_like(old, value) for name, old in weights(source).items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_greedy_soup_takes_who_improves_it(models: list[Path], tmp_path: Path) -> None:
    given = [constant(tmp_path / f"m{i}", models[0], value) for i, value in enumerate((0.0, 2.0, 5.0))]
    metric = FirstWeight(1.1)
    made = merge(Greedy(), given, tmp_path / "out", metric=metric)
    assert [path.name for path in made.best.models] == ["m1", "m0"]  # their mean is 1; with 5.0 it is worse
    assert weights(tmp_path / "out")["model.norm.weight"].mean() == 1.0
    assert len(made.looked_at) == 5
    assert {path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")} == set()


def test_greedy_soup_may_be_one_model(models: list[Path], tmp_path: Path) -> None:
    given = [constant(tmp_path / f"m{i}", models[0], value) for i, value in enumerate((1.0, 3.0))]
    made = merge(Greedy(), given, tmp_path / "out", metric=FirstWeight(1.0))
    assert [path.name for path in made.best.models] == ["m0"]
    assert weights(tmp_path / "out")["model.norm.weight"].mean() == 1.0


def test_a_search_keeps_the_best_and_tells_of_all(models: list[Path], tmp_path: Path) -> None:
    given = [constant(tmp_path / f"m{i}", models[0], value) for i, value in enumerate((0.0, 1.0))]
    said: list[str] = []
    method = Search(of=Linear(), tries=6, seed=1)
    made = merge(method, given, tmp_path / "out", metric=FirstWeight(0.6), say=said.append)
    values = [candidate.value for candidate in made.looked_at]
    assert len(said) == len(values) == 2 + 6 and len(set(values)) == 2 + 6
    assert made.best.value == min(value for value in values if value is not None)
    assert made.best.value is not None and made.best.value < 0.1  # that of equal weights
    again = merge(method, given, tmp_path / "again", metric=FirstWeight(0.6))
    assert [candidate.value for candidate in again.looked_at] == values


def test_a_model_given_twice_is_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="given twice"):
        merge(Linear(), [models[0], models[1], models[0]], tmp_path / "out")


def test_models_of_other_shapes_are_refused(models: list[Path], tmp_path: Path) -> None:
    tensors = weights(models[1]) | {"model.norm.weight": torch.ones(7)}
    save_file(tensors, models[1] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight is 32 in one and 7 in the other"):
        merge(Linear(), models[:2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_other_vocabularies_are_refused(models: list[Path], tmp_path: Path) -> None:
    vocabulary = {f"t{i}": i for i in range(64)}
    del vocabulary["t7"]
    tree = {"model": {"vocab": vocabulary | {"x": 7}}, "added_tokens": []}
    (models[1] / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="id 7 is 't7' in one and 'x' in the other"):
        merge(Linear(), models[:2], tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "num_models", "base", "words"),
    [
        (Ties(), 2, False, "--base DIR"),
        (Linear(), 2, True, "no use for a base"),
        (Linear(), 1, False, "nothing to merge it with"),
        (Linear(weights=[1.0]), 2, False, "1 weights are given for 2 models"),
        (Linear(weights=[1.0, -1.0]), 2, False, "sum to 0"),
        (Slerp(), 3, False, "3 are given"),
        (Greedy(), 2, False, "--by"),
        (Search(of=Linear()), 2, False, "--by"),
    ],
)
def test_settings_must_fit_the_models(
    method: Merge, num_models: int, base: bool, words: str, models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        merge(method, models[:num_models], tmp_path / "out", base=models[2] if base else None)
    assert not (tmp_path / "out").exists()


def test_a_merge_that_is_not_finite_is_not_kept(models: list[Path], tmp_path: Path) -> None:
    tensors = weights(models[1])
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, models[1] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not finite: model\.norm\.weight"):
        merge(Linear(), models[:2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint is here"):
        merge(Linear(), [models[0], tmp_path], tmp_path / "out")
    (models[1] / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="damaged"):
        merge(Linear(), models[:2], tmp_path / "out")


@pytest.mark.parametrize("dtype", ["int3", 7, ["float32"]])
def test_a_dtype_that_is_none_is_named(dtype: object, models, tmp_path: Path) -> None:
    config = models[0] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": dtype, "torch_dtype": dtype}))
    with pytest.raises(UserError, match=r"config\.json: dtype .* is none of float32, .*; correct it there"):
        merge(Linear(), models[:2], tmp_path / "out", dtype="bf16")
    assert not (tmp_path / "out").exists()
