"""A preparation that is refused: it says what is wrong with the text, and its advice can be followed."""

import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from atoll import cli

RECIPE = """
name = "mine"
model = {{ preset = "demo", hidden_size = 8, intermediate_size = 8, num_hidden_layers = 1, vocab_size = 512 }}
tokenizer.train = 290
sources.a.jsonl = "{path}"
stage = [{{ until = 4, mixture = {{ a = 1 }} }}]
inner = {{ context_length = 16, tokens_per_step = 16 }}
outer = {{ inner_steps = 2 }}
"""
LINES = [
    json.dumps({"text": f"once there were {n} whales, {n * 7} islands and {n * 11} boats"}) for n in range(60)
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.format(path=tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text("\n".join([*LINES, '{"text": null}']))
    return path


def prepare(recipe: Path, *more: str) -> int:
    return cli.main(["prepare", str(recipe), "--dir", str(recipe.parent / "new" / "run"), *more])


def test_a_bad_row_leaves_nothing_so_that_its_advice_can_be_followed(recipe, capsys) -> None:
    assert prepare(recipe) == 2
    assert (
        "row 61: null instead of text; correct it, or set sources.a.skip_bad_rows = true"
        in capsys.readouterr().err
    )
    assert not (recipe.parent / "new").exists()
    assert prepare(recipe, "sources.a.skip_bad_rows=true") == 0


def test_what_took_time_to_prepare_stays_and_another_recipe_is_told_so(recipe, capsys) -> None:
    """Of two sources the first is whole when the second is refused."""
    text = recipe.read_text().replace("a = 1", "a = 1, b = 1")
    recipe.write_text(text.replace("stage", f'sources.b.jsonl = "{recipe.parent}/b.jsonl"\nstage'))
    (recipe.parent / "a.jsonl").rename(recipe.parent / "b.jsonl")
    (recipe.parent / "a.jsonl").write_text("\n".join(LINES))
    assert prepare(recipe) == 2
    run = recipe.parent / "new" / "run"
    assert list(run.glob("data/shards/a/*.tokens"))
    capsys.readouterr()
    assert prepare(recipe, "sources.b.skip_bad_rows=true") == 2
    said = capsys.readouterr().err
    assert f"it was not prepared to its end: remove {run} to begin anew, or choose another --dir" in said


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"Text": "once"}', "no column 'text'; there is: Text"),
        (b'["once"]', "not a JSON object"),
        ('{"text": "größer"}'.encode("latin-1"), "not UTF-8"),
    ],
)
def test_where_no_row_can_be_used_the_first_says_why(recipe, capsys, row, reason) -> None:
    (recipe.parent / "a.jsonl").write_bytes(b"\n".join([row] * 3))
    assert prepare(recipe) == 2
    said = capsys.readouterr().err
    assert "a.jsonl: no row of it can be used; the first that cannot is " in said
    assert f"a.jsonl, row 1: {reason}" in said


def test_rows_that_keep_leaves_out_are_told_beside_the_bad_ones(recipe, capsys) -> None:
    (recipe.parent / "a.jsonl").write_text('{"text": "once", "n": 1}\n{"text": 3, "n": 2}')
    assert prepare(recipe, "sources.a.keep={n = [2]}") == 2
    assert "no row of it can be used (keep leaves out 1); the first that cannot is" in capsys.readouterr().err
