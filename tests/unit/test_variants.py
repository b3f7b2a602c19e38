"""The variants of a recipe: side by side, ranked, and what becomes of one that fails."""

import os
import threading
from pathlib import Path

import pytest
from test_merge import FirstWeight, checkpoint, constant

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.post import command, training, variants
from atoll.post.command import Failed, Stopped, atoll
from atoll.post.training import MODEL, Training
from atoll.post.variants import RANKING, train_all
from atoll.recipe import Recipe
from atoll.recipe.variants import Variant
from atoll.run.directory import RunDir

TEXT = """
name = "v"
model.preset = "demo"
tokenizer.train = 512
sources.code.code = "stdlib"
stage = [{ until = 4, mixture = { code = 1 } }]
inner = { context_length = 64, tokens_per_step = 128, optimizer = { type = "adamw" } }
outer.inner_steps = 2
[island]
threads = 2
[[variant]]
name = "low"
set = ["inner.optimizer.lr=1e-4"]
note = "as it was"
[[variant]]
name = "high"
set = ["inner.optimizer.lr=1e-2"]
[[variant]]
name = "wild"
set = ["inner.optimizer.lr=9"]
"""


class Trainer:
    """In the place of training: a checkpoint whose weights are the learning rate, or a failure."""

    def __init__(self, source: Path, together: int = 1) -> None:
        self._source, self._met = source, threading.Barrier(together, timeout=30)
        self.seen: list[str] = []

    def __call__(self, recipe: Recipe, run_dir: RunDir, how: Training, stop: threading.Event) -> bool:
        self._met.wait()
        self.seen.append(recipe.name)
        lr = recipe.inner.optimizer.lr
        if lr > 1:
            raise Failed("inner step 3: loss nan")
        if not (run_dir.path / MODEL).exists():
            run_dir.path.mkdir(parents=True)
            constant(run_dir.path / MODEL, self._source, lr)
        return False


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "v.toml").write_text(TEXT)
    return tmp_path / "v.toml"


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer(checkpoint(tmp_path / "seed", 1))
    monkeypatch.setattr(variants, "train", made)
    monkeypatch.setattr(variants, "HeldoutLoss", Distance)
    return made


class Distance(FirstWeight):
    """A held-out loss that a test can see through: the distance of the weights from 0.02."""

    name, higher_is_better = "held-out loss", False

    def __init__(self, run_dir: Path) -> None:
        super().__init__(0.02)


def test_a_variant_that_fails_is_ranked_last_and_named(source: Path, trainer: Trainer, tmp_path) -> None:
    said: list[str] = []
    ranking = train_all(source, [], tmp_path / "out", say=said.append)
    assert trainer.seen == ["v-low", "v-high", "v-wild"]
    assert [one.name for one in ranking.runs] == ["high", "low", "wild"]
    assert ranking.runs[-1].model is None and "loss nan" in ranking.runs[-1].failure
    assert [
        line for line in said if line.startswith("wild: inner step 3: loss nan; the other variants go on")
    ]
    lines = (tmp_path / "out" / RANKING).read_text().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["0.0100", "high"],
        ["0.0199", "low"],
        ["failed", "wild"],
    ]
    assert lines[2].endswith("as it was") and lines[3].endswith("loss nan")


def test_a_figure_that_is_not_finite_is_a_failure(source, trainer, tmp_path, monkeypatch) -> None:
    def nan(self: Distance, path: Path) -> float:
        return float("nan") if path.parent.name == "high" else FirstWeight.__call__(self, path)

    monkeypatch.setattr(Distance, "__call__", nan)
    ranking = train_all(source, [], tmp_path / "out")
    assert [one.name for one in ranking.runs] == ["low", "high", "wild"]
    assert ranking.runs[1].failure == "its held-out loss is nan" and ranking.runs[1].model is None


def test_variants_train_side_by_side(source: Path, tmp_path: Path, monkeypatch) -> None:
    met = Trainer(checkpoint(tmp_path / "seed", 1), together=3)  # each waits until all three are under way
    monkeypatch.setattr(variants, "train", met)
    monkeypatch.setattr(variants, "HeldoutLoss", Distance)
    ranking = train_all(source, [], tmp_path / "out", Training(at_once=3))
    assert [one.name for one in ranking.runs] == ["high", "low", "wild"]


def test_an_error_ends_those_that_are_under_way(source: Path, tmp_path: Path, monkeypatch) -> None:
    ended: list[str] = []
    under_way = threading.Barrier(3, timeout=30)

    def one(recipe: Recipe, run_dir: RunDir, how: Training, stop: threading.Event) -> bool:
        under_way.wait()
        if recipe.name == "v-low":
            raise UserError("cannot be used")
        assert stop.wait(30)
        ended.append(recipe.name)
        raise Stopped

    monkeypatch.setattr(variants, "train", one)
    with pytest.raises(UserError, match="cannot be used"):
        train_all(source, [], tmp_path / "out", Training(at_once=3))
    assert sorted(ended) == ["v-high", "v-wild"]


def test_variants_of_a_step_take_the_place_of_the_recipes(source, trainer, tmp_path) -> None:
    own = [
        Variant(name="a", set=["inner.optimizer.lr=0.5"]),
        Variant(name="b", set=["inner.optimizer.lr=0.1"]),
    ]
    ranking = train_all(source, [], tmp_path / "out", variants=own)
    assert [one.name for one in ranking.runs] == ["b", "a"] and trainer.seen == ["v-a", "v-b"]


def test_the_recipe_names_the_metric(source, trainer, tmp_path, monkeypatch) -> None:
    class Score(FirstWeight):
        name, higher_is_better = "a task", True

    asked: list[object] = []
    monkeypatch.setattr(variants, "metric_of", lambda by, where: asked.append(by) or Score(0.0))
    source.write_text("rank_by = { task = 'a_task', limit = 3 }\n" + TEXT)
    ranking = train_all(source, [], tmp_path / "out")
    assert [one.name for one in ranking.runs] == ["high", "low", "wild"] and ranking.metric == "a task"
    assert asked == [recipes.variants(source).rank_by]


def test_where_all_fail_the_first_failure_is_said(source, trainer, tmp_path) -> None:
    own = [Variant(name=name, set=["inner.optimizer.lr=5"]) for name in "ab"]
    with pytest.raises(UserError, match="every variant failed; the first: inner step 3"):
        train_all(source, [], tmp_path / "out", variants=own)
    assert "failed" in (tmp_path / "out" / RANKING).read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "high"', 'name = "low"', "at variant: low: given twice"),
        ("[[variant]]", "[[variants]]", "unknown key `variants`"),
        ('note = "as it was"', "note = 3", "at variant.0.note"),
        ('name = "v"', 'name = "v"\nrank_by = { }', "at rank_by: give heldout = RUN or task = NAME"),
    ],
)
def test_what_is_wrong_with_variants_is_said(old: str, new: str, words: str, source: Path, tmp_path) -> None:
    source.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError, match=words):
        train_all(source, [], tmp_path / "out")


def test_a_metric_without_variants_has_no_effect(source: Path) -> None:
    source.write_text("rank_by = { task = 'x' }\n" + TEXT.partition("[[variant]]")[0])
    with pytest.raises(UserError, match="at rank_by: has no effect without variants"):
        recipes.load(source)


@pytest.mark.parametrize(
    ("islands", "at_once", "cores", "given", "threads"),
    [
        (1, 1, 8, None, None),  # torch decides
        (2, 1, 8, None, 1),
        (1, 4, 8, None, 2),
        (2, 2, 8, 1, 1),
        (1, 4, 2, 2, 1),  # two busy trainers of two threads on two cores are many times slower
    ],
)
def test_what_trains_side_by_side_shares_the_cores(
    islands, at_once, cores, given, threads, source: Path, monkeypatch
) -> None:
    monkeypatch.setattr(training.os, "cpu_count", lambda: cores)
    recipe = recipes.load(source, [f"island.threads={given}"] if given else [], "low")
    if given is None:
        recipe = recipes.parse(recipe.shared() | {"island": {}}, "test")
    assert Training(islands=islands, at_once=at_once).threads(recipe) == threads


# ------------------------------------------------------------------------------------------ children
def hanging(tmp_path: Path) -> list[str]:
    """A verb that never ends by itself: it reads a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe.toml")
    return ["pipeline", str(tmp_path / "pipe.toml"), "--plan"]


def test_a_child_that_shows_no_progress_is_ended_and_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "QUIET_SECONDS", 0.5)
    with pytest.raises(Failed, match=r"atoll pipeline is stuck: nothing in .* has changed for 0\.5 s"):
        atoll(*hanging(tmp_path), log=tmp_path / "logs" / "log")


def test_a_child_ends_when_nobody_wants_it_any_more(tmp_path: Path, monkeypatch) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        atoll(*hanging(tmp_path), log=tmp_path / "logs" / "log", stop=stop)


def test_files_that_change_are_progress(tmp_path: Path, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(command.time, "monotonic", lambda: now)
    monkeypatch.setattr(command, "QUIET_SECONDS", 100.0)
    quiet = command.Quiet(tmp_path)
    for number in range(5):
        now += 60.0
        (tmp_path / str(number)).touch()
        quiet.check("it")
    now += 60.0
    quiet.check("it")
    now += 60.0
    with pytest.raises(Failed, match="it is stuck"):
        quiet.check("it")


@pytest.mark.slow
def test_two_variants_train_at_once_and_one_that_diverges_comes_last(source: Path, tmp_path: Path) -> None:
    """Real processes: one variant's loss becomes infinite or NaN, and its island ends."""
    text = TEXT.replace("inner.optimizer.lr=9", "inner.optimizer.lr=1000").replace("until = 4", "until = 40")
    source.write_text(text)
    overrides = ["model.hidden_size=32", "model.num_attention_heads=2", "model.num_key_value_heads=1"]
    ranking = train_all(source, overrides, tmp_path / "out", Training(at_once=2))
    assert {one.name for one in ranking.runs[:2]} == {"low", "high"}
    assert ranking.runs[2].name == "wild" and ranking.runs[2].model is None
    assert "not finite" in ranking.runs[2].failure or "loss nan" in ranking.runs[2].failure
