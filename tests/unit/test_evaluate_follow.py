"""Following a run: which states are measured, what the coordinator is told, and when it ends."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.scores import result
from unit.small_runs import make_recipe

from atoll.data.manifest import Manifest
from atoll.errors import UserError
from atoll.evaluate import follow as module
from atoll.evaluate.measure import Asked
from atoll.evaluate.results import Checkpoint
from atoll.evaluate.suites import Question
from atoll.evaluate.verb import Wanted
from atoll.files import DirectoryLock
from atoll.publish.export import load_model
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.swarm import messages as m

LAST = 6
RECIPE = {
    "name": "reef",
    "model": {"preset": "demo"},
    "tokenizer": {"train": 320},
    "sources": {"a": {"text": "a"}},
    "stage": [{"until": 12, "mixture": {"a": 1}}],
    "inner": {"context_length": 8, "tokens_per_step": 16},
    "outer": {"inner_steps": 2},
}


class Run:
    """A run whose states appear one by one, and a coordinator that may be silent."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = directory / "run"
        (self.path / "islands" / "relay" / "outer").mkdir(parents=True)
        (self.path / "recipe.json").write_text(json.dumps(RECIPE))
        self.measured: list[int] = []
        self.told: list[int] = []
        self.said: list[str] = []
        self.is_silent = False
        self.samples: tuple[str, ...] = ()  # that the coordinator was told of
        self.proven = LAST  # states up to this one have a commit record here
        self.steps = iter(range(1, LAST + 1))
        monkeypatch.setattr(module, "State", self._state)
        monkeypatch.setattr(module, "Data", lambda *_: SimpleNamespace(provide=lambda: None))
        monkeypatch.setattr(module, "heldout_losses", lambda *_: {"books": 4.5})
        monkeypatch.setattr(module, "Measuring", lambda *_: self)
        monkeypatch.setattr(module.time, "sleep", self._wait)
        monkeypatch.setattr(module, "LAST_WORD_SECONDS", 0.05)
        monkeypatch.setattr(operate, "answered", self._answered)
        self.left_out: list[str] = []

    def _wait(self, _: float) -> None:
        if (step := next(self.steps, None)) is not None:
            (self.path / "islands" / "relay" / "outer" / f"{step:08}.safetensors").touch()

    def _state(self, run_dir: RunDir, step: int) -> Any:
        assert step == module.newest_step(run_dir)
        if step > self.proven:
            self.proven = LAST  # its record comes next
            raise UserError("not proven yet")

        @contextlib.contextmanager
        def as_checkpoint(_: Path) -> Any:
            yield None, Checkpoint(name="run", digest=str(step), step=step, run_id="reef-1"), None

        return SimpleNamespace(
            saved=SimpleNamespace(step=step, root=bytes([step])),
            recipe=SimpleNamespace(num_outer_steps=LAST),
            as_checkpoint=as_checkpoint,
        )

    def measure(self, _: None, checkpoint: Checkpoint) -> list[Any]:
        self.measured.append(checkpoint.step or 0)
        return [result(0.25, 0.01)]

    def _answered(self, _: RunDir, request: m.TellEvaluation, kind: type) -> None:
        assert kind is m.EvaluationTold
        if self.is_silent:
            raise operate.NoAnswer("no coordinator answers")
        assert request.scores["arc_challenge"].value == 0.25
        assert request.heldout_losses == {"books": 4.5}
        assert request.root == bytes([request.step])
        self.told.append(request.step)
        self.samples = request.samples

    def follow(self, every: int = 1, prompt: str = "") -> None:
        asked = Asked(questions=(Question(task="arc_challenge"),))
        wanted = Wanted(models=(str(self.path),), asked=asked, prompt=prompt)
        shown: Any = SimpleNamespace(
            say=self.said.append,
            tell=self.said.append,
            report=None,
            results=lambda *_: None,
            curves=lambda *_: None,
        )
        module.follow(wanted, every, shown)


@pytest.fixture
def a_run(tmp_path, monkeypatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_each_new_state_is_measured_and_told_until_the_run_is_finished(a_run):
    a_run.follow()
    assert a_run.measured == a_run.told == [1, 2, 3, 4, 5, 6]


def test_a_text_that_a_state_has_written_is_told_too(a_run, monkeypatch):
    monkeypatch.setattr(module, "sampled", lambda model, run_dir, prompt: (f"{prompt} a time",))
    a_run.follow(every=LAST, prompt="Once upon")
    assert a_run.samples == ("Once upon a time",)
    assert "Once upon a time" in a_run.said


def test_a_sample_is_the_prompt_and_its_continuation_on_one_line(tmp_path):
    recipe, run_dir = make_recipe(tmp_path), RunDir(tmp_path / "run")
    run_dir.claim(recipe)
    prepare(recipe, run_dir, lambda *_: None)
    model = load_model(recipe, Manifest.load(run_dir.data).vocab_size, run_dir.state_0())
    (text,) = module.sampled(model, run_dir, "aeio\nulmn")
    assert text.startswith("aeio ulmn")
    assert len(text) > len("aeio ulmn")
    assert text.isprintable()
    assert module.sampled(model, run_dir, "aeio\nulmn") == (text,), "equal draws for every state"


def test_every_nth_state_is_measured_and_the_last_one_always(a_run):
    a_run.follow(every=3)
    assert a_run.measured == [1, 4, 6]


def test_a_state_whose_record_is_not_here_yet_is_waited_for(a_run):
    a_run.proven = 2
    a_run.follow()
    assert a_run.measured == [1, 2, 4, 5, 6], "while state 3 waited for its record, state 4 came"
    assert a_run.said.count("state 3 cannot be measured yet: not proven yet") == 1


def test_a_coordinator_that_was_silent_is_told_later(a_run, monkeypatch):
    a_run.is_silent = True
    measure = a_run.measure

    def heard_from_the_fourth_on(files: None, checkpoint: Checkpoint) -> list[Any]:
        a_run.is_silent = (checkpoint.step or 0) < 4
        return measure(files, checkpoint)

    monkeypatch.setattr(a_run, "measure", heard_from_the_fourth_on)
    a_run.follow()
    assert a_run.told == [1, 2, 3, 4, 5, 6]


def test_a_coordinator_that_stays_silent_does_not_keep_it_and_people_are_told(a_run):
    a_run.is_silent = True
    a_run.follow()
    assert a_run.measured[-1] == LAST
    assert a_run.said[-1] == "the coordinator was not told of 6 states"


def test_a_run_of_a_module_of_its_own_is_refused(a_run):
    own = {**RECIPE, "model": {"own": True}, "stage": [{"until": 12}], "sources": {}}
    del own["tokenizer"]
    (a_run.path / "recipe.json").write_text(json.dumps(own))
    with pytest.raises(UserError, match="which transformers cannot load"):
        a_run.follow()


def test_what_is_no_run_is_refused(a_run, tmp_path):
    a_run.path = tmp_path
    with pytest.raises(UserError, match="--follow takes the directory of a run"):
        a_run.follow()


def test_two_processes_do_not_follow_a_run_into_one_directory(a_run):
    with DirectoryLock(a_run.path / "evaluations") as lock:
        assert lock.acquire()
        with pytest.raises(UserError, match="another process measures this run here"):
            a_run.follow()
