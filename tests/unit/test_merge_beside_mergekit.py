"""Merges against MergeKit's own command line, with configurations as its users write them."""

import warnings
from pathlib import Path

import pytest
from test_merge import checkpoint

from atoll.post.merge import merge
from atoll.recipe.merge import (
    Breadcrumbs,
    Dare,
    Della,
    Linear,
    Merge,
    ModelStock,
    Slerp,
    TaskArithmetic,
    Ties,
)

SEED = 7
TWO = """
models:
  - model: {a}
    parameters: {{weight: 0.3{more}}}
  - model: {b}
    parameters: {{weight: 0.7{more}}}
merge_method: {method}
{base}
dtype: float32
out_dtype: {dtype}
"""
PLAIN = """
models: [{{model: {a}}}, {{model: {b}}}]
merge_method: {method}
base_model: {base_model}
{more}
dtype: float32
out_dtype: {dtype}
"""
WEIGHTS = [0.3, 0.7]
CASES: list[tuple[Merge, str, str, str]] = [  # ours; the template, the method and the parameters of theirs
    (Linear(weights=WEIGHTS), TWO, "linear", ""),
    (Slerp(t=0.25), PLAIN, "slerp", "parameters: {t: 0.25}"),
    (TaskArithmetic(weights=WEIGHTS), TWO, "task_arithmetic", ""),
    (Ties(weights=WEIGHTS, density=0.4), TWO, "ties", ", density: 0.4"),
    (Dare(weights=WEIGHTS, density=0.6, seed=SEED), TWO, "dare_ties", ", density: 0.6"),
    (Dare(weights=WEIGHTS, density=0.6, seed=SEED, elect_signs=False), TWO, "dare_linear", ", density: 0.6"),
    (Della(weights=WEIGHTS, density=0.5, seed=SEED), TWO, "della", ", density: 0.5, epsilon: 0.15"),
    (
        Della(weights=WEIGHTS, density=0.5, seed=SEED, elect_signs=False),
        TWO,
        "della_linear",
        ", density: 0.5, epsilon: 0.15",
    ),
    (Breadcrumbs(weights=WEIGHTS), TWO, "breadcrumbs", ", density: 0.9, gamma: 0.01"),
    (Breadcrumbs(weights=WEIGHTS, elect_signs=True), TWO, "breadcrumbs_ties", ", density: 0.9, gamma: 0.01"),
    (ModelStock(), PLAIN, "model_stock", ""),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("models")
    return [checkpoint(place / name, seed) for seed, name in enumerate(("a", "b", "base"))]


def by_command(configuration: str, directory: Path) -> Path:
    """What `mergekit-yaml` makes of a configuration; its command is called in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mergekit.scripts.run_yaml import main
    directory.mkdir()
    (directory / "merge.yml").write_text(configuration)
    options = ["--no-write-model-card", "--quiet", "--random-seed", str(SEED)]
    main([str(directory / "merge.yml"), str(directory / "out"), *options], standalone_mode=False)
    return directory / "out"


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("method", "template", "name", "more"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_weights_are_those_of_mergekit_byte_for_byte(
    method: Merge, template: str, name: str, more: str, dtype: str, models: list[Path], tmp_path: Path
) -> None:
    a, b, base = models
    needs_base = not isinstance(method, Linear | Slerp)
    ours = merge(
        method,
        [a, b],
        tmp_path / "ours",
        base=base if needs_base else None,
        dtype="bf16" if dtype == "bfloat16" else "fp32",
    ).out
    configuration = template.format(
        a=a,
        b=b,
        method=name,
        more=more,
        dtype=dtype,
        base=f"base_model: {base}" if needs_base else "",
        base_model=base if needs_base else a,
    )
    theirs = by_command(configuration, tmp_path / "theirs")
    files = {path.name for path in theirs.glob("*.safetensors*")}
    assert files == {path.name for path in ours.glob("*.safetensors*")}
    for file in files:
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()
