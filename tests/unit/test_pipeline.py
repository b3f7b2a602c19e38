"""Pipelines: what is done once is not done again, and what fails can go on."""

import re
import shutil
from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt
from test_merge import FirstWeight, checkpoint, weights

from atoll.errors import UserError
from atoll.post.pipeline import Finished, load, plan, run, steps
from atoll.post.pipeline.inputs import recipes_of
from atoll.recipe.merge import Best
from atoll.recipe.pipeline import MergeStep, Train

TEXT = """
name = "p"
[[step]]
name = "mean"
do = "merge"
models = ["{a}", "{b}"]
settings = {{ method = "linear" }}
[[step]]
name = "further"
do = "merge"
models = ["@mean", "{c}"]
settings = {{ method = "linear", weights = [0.25, 0.75] }}
[[step]]
name = "out"
do = "export"
of = "@further"
to = "{out}"
[summary]
chosen = "further.best"
"""


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [checkpoint(tmp_path / name, seed) for seed, name in enumerate("abc")]


def written(tmp_path: Path, models: list[Path], text: str = TEXT) -> Path:
    file = tmp_path / "p.toml"
    a, b, c = models
    file.write_text(text.format(a=a, b=b, c=c, out=tmp_path / "exported"))
    return file


def done(file: Path, tmp_path: Path) -> tuple[Finished, list[str]]:
    said: list[str] = []
    return run(load(file), tmp_path / "work", say=said.append), said


def test_steps_make_models_out_of_one_another(models: list[Path], tmp_path: Path) -> None:
    finished, _ = done(written(tmp_path, models), tmp_path)
    a, b, c, out = (weights(path)["model.norm.weight"] for path in (*models, tmp_path / "exported"))
    assert (out - (0.125 * a + 0.125 * b + 0.75 * c)).abs().max() < 1e-6
    kept = msgspec.json.decode((tmp_path / "work" / "summary.json").read_bytes())
    assert kept["export_dir"] == str(tmp_path / "exported")
    assert kept["chosen"].startswith("linear weights=[0.25, 0.75]")
    lines = finished.picture.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["1", "mean", "-"],
        ["2", "further", "1"],
        ["3", "out", "2"],
    ]


def test_what_has_not_changed_is_not_done_again(models: list[Path], tmp_path: Path) -> None:
    file = written(tmp_path, models)
    done(file, tmp_path)
    _, said = done(file, tmp_path)
    assert [line.split(": ")[1] for line in said] == ["unchanged"] * 3


def test_a_change_does_again_what_depends_on_it(models: list[Path], tmp_path: Path) -> None:
    done(written(tmp_path, models), tmp_path)
    _, said = done(written(tmp_path, models, TEXT.replace("[0.25, 0.75]", "[0.5, 0.5]")), tmp_path)
    assert [line for line in said if "unchanged" in line] == ["1/3 mean: unchanged"]
    assert sum("done in" in line for line in said) == 2


def test_another_input_model_is_a_change(models: list[Path], tmp_path: Path) -> None:
    done(written(tmp_path, models), tmp_path)
    shutil.rmtree(models[0])
    checkpoint(models[0], 7)
    _, said = done(written(tmp_path, models), tmp_path)
    assert not [line for line in said if "unchanged" in line]


def test_a_product_that_was_changed_by_hand_is_a_change(models: list[Path], tmp_path: Path) -> None:
    done(written(tmp_path, models), tmp_path)
    (tmp_path / "work" / "mean" / "model" / "generation_config.json").write_text("{}")
    _, said = done(written(tmp_path, models), tmp_path)
    assert [line for line in said if "unchanged" in line] == ["1/3 mean: unchanged"]


def test_after_a_failure_the_same_command_goes_on(models: list[Path], tmp_path: Path) -> None:
    file = written(tmp_path, models)
    aside = models[2].rename(tmp_path / "aside")
    with pytest.raises(UserError, match=r"step further: .*no checkpoint is here.*goes on from here"):
        done(file, tmp_path)
    aside.rename(models[2])
    _, said = done(file, tmp_path)
    assert said[0] == "1/3 mean: unchanged" and (tmp_path / "exported" / "config.json").is_file()


def test_nothing_else_is_overwritten(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not from a pipeline"):
        done(written(tmp_path, models), tmp_path)
    assert (tmp_path / "exported" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"@mean"', '"@maen"', "@maen is no step before it; did you mean @mean?"),
        ('"@mean"', '"@further"', "@further is no step before it"),
        ('name = "further"', 'name = "mean"', "two of this name"),
        ('"further.best"', '"nobody.best"', "there is no step nobody"),
        ('"further.best"', '"further.worst"', "has found no 'worst'; there is: best"),
        ('do = "export"', 'do = "exprot"', "step.2"),
        ('of = "@further"', 'of = "/nowhere"', "/nowhere: no checkpoint is here"),
        ('to = "{out}"', 'to = "{a}/config.json"', "config.json: a file is there"),
        (
            "[summary]",
            '[[step]]\nname = "t"\ndo = "train"\nrecipe = "demo"\ndrill = true\n[summary]',
            "step t: drill: has no effect on one island alone",
        ),
        ('"@mean"', '"@mean:x"', "there is: one only"),
        ('of = "@further"', 'of = "@further"\nnote = 3', "step.2.note"),
        ("[0.25, 0.75] }}", "[0.25, 0.75] }}\nby = {{ }}", "give heldout = RUN or task = NAME"),
        (
            "[0.25, 0.75] }}",
            "[0.25, 0.75] }}\nby = {{ heldout = 'x', limit = 3 }}",
            "limit: has no effect on a held-out loss",
        ),
    ],
)
def test_what_is_wrong_in_a_pipeline_is_said(
    old: str, new: str, words: str, models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        done(written(tmp_path, models, TEXT.replace(old, new)), tmp_path)


def test_the_card_shows_what_was_made_from_what(models: list[Path], tmp_path: Path) -> None:
    noted = TEXT.replace('name = "mean"\n', 'name = "mean"\nnote = "of <two> | more"\n')
    done(written(tmp_path, models, noted), tmp_path)
    path = tmp_path / "exported" / "README.md"
    first = path.read_text()
    table = MarkdownIt("gfm-like", {"linkify": False}).render(first.partition("---\n# ")[2])
    cells = [re.findall("<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    assert [row[1:3] for row in cells] == [["mean", "-"], ["further", "1"], ["out", "2"]]
    assert cells[0][3].endswith("of &lt;two&gt; | more") and "linear" in cells[1][3]
    assert "conversational" not in first  # nothing was trained on chats
    done(written(tmp_path, models, noted), tmp_path)
    assert path.read_text() == first


def test_a_card_that_is_there_gets_the_chapter(models: list[Path], tmp_path: Path) -> None:
    (models[0] / "README.md").write_text("# of a run\n")
    (models[0] / "proof").mkdir()
    (models[0] / "proof" / "records").write_bytes(b"1")
    file = tmp_path / "q.toml"
    step = f'name = "out"\ndo = "export"\nof = "{models[0]}"\nto = "{tmp_path}/e"\n'
    file.write_text(f'name = "q"\n[[step]]\n{step}')
    run(load(file), tmp_path / "work")
    card = (tmp_path / "e" / "README.md").read_text()
    assert card.startswith("# of a run\n\n## How it was made\n")
    assert (tmp_path / "e" / "proof" / "records").read_bytes() == b"1"


def test_a_note_is_for_people_and_does_nothing_again(models: list[Path], tmp_path: Path) -> None:
    done(written(tmp_path, models), tmp_path)
    noted = TEXT.replace('name = "mean"\n', 'name = "mean"\nnote = "of two"\n')
    _, said = done(written(tmp_path, models, noted), tmp_path)
    assert [line.split(": ")[1] for line in said] == ["unchanged"] * 3
    assert "of two" in plan(load(written(tmp_path, models, noted)))


def test_the_best_of_the_models_is_taken_as_it_is(models: list[Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(steps, "metric_of", lambda by, directory: FirstWeight(1.0))
    text = TEXT.replace(
        'settings = {{ method = "linear" }}', 'settings = {{ method = "best" }}\nby.heldout="x"'
    )
    finished, _ = done(written(tmp_path, models, text), tmp_path)
    best = min(models[:2], key=FirstWeight(1.0))
    (value,) = {float(FirstWeight(1.0)(best))}
    assert weights(finished.directory / "mean" / "model")["model.norm.weight"].equal(
        weights(best)["model.norm.weight"]
    )
    found = msgspec.json.decode((finished.directory / "mean" / "step.json").read_bytes())["found"]
    assert found["value"] == value == min(found["parents"])


def test_intellect_1_instruct_is_what_was_published_and_says_what_is_unknown() -> None:
    """Its runs are counted here as the model card counts them."""
    pipeline = load("intellect-1-instruct")
    sft, dpo = (step for step in pipeline.step if isinstance(step, Train))
    assert (len(sft.variant), len(dpo.variant)) == (16, 8)
    tokens = {
        variant.name: recipe.stage[-1].until * recipe.inner.tokens_per_step
        for variant, recipe in zip(sft.variant, recipes_of(sft), strict=True)
    }
    assert min(tokens.values()) == pytest.approx(1e9, rel=0.01)
    assert max(tokens.values()) == pytest.approx(3.3e9, rel=0.01)
    (best,) = (variant.name for variant in sft.variant if "the best of the 16" in variant.note)
    assert tokens[best] == pytest.approx(2.4e9, rel=0.01)
    merges = [step for step in pipeline.step if isinstance(step, MergeStep)]
    assert [isinstance(merge.settings, Best) for merge in merges] == [False] * 16 + [True]
    assert len(recipes_of(dpo)) == 8
    noted = [sft, *sft.variant, dpo, *dpo.variant, *merges]
    assert all(each.note == "unknown" or each.note.startswith("published: ") for each in noted)
    shown = plan(pipeline)
    assert shown.count(": unknown (stage.0") == 15 + 8 and "2.4 billion tokens over 3 epochs" in shown
    assert "16 variants on 1 G to 3.3 G tokens" in shown and max(map(len, shown.splitlines())) <= 110
