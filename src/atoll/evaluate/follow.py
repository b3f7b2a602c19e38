"""`atoll evaluate RUN --follow`: measures the states of a run that goes on, and tells the coordinator.

It reads the files of an agent that works here, an island's or a relay's, and nobody waits for it.
"""

import time
from pathlib import Path

from atoll import recipe
from atoll.data.manifest import TOKENIZER_DIR
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.evaluate import results
from atoll.evaluate.data import DataSets
from atoll.evaluate.figure import refuse_other
from atoll.evaluate.heldout import Data, heldout_losses
from atoll.evaluate.measure import Measuring
from atoll.evaluate.results import Result
from atoll.evaluate.states import State, refuse_own_module
from atoll.evaluate.table import figure_of
from atoll.evaluate.verb import Shown, Wanted
from atoll.files import DirectoryLock, remove_leftovers
from atoll.metrics import Score
from atoll.model.generate import Sampling, generate
from atoll.model.hf import Model
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.swarm import messages as m
from atoll.words import MAX_SAMPLE_LENGTH, one_line

POLL_SECONDS = 2.0
QUIET_SECONDS = 600.0  # without a new state, until people are told
SAMPLING = Sampling(max_tokens=80, temperature=0.8)  # equal draws for every state, so that they compare
LAST_WORD_SECONDS = 60.0  # in which a coordinator is told of the last states


def follow(wanted: Wanted, every: int, shown: Shown) -> None:
    """Measure the newest state, then each `every`th new one that is written here, until the run is finished.

    The last state is always measured. Raises UserError where no run is, where another process follows it
    here, and as `Measuring.measure` does.
    """
    refuse_other(wanted.plot)
    run_dir = RunDir(Path(wanted.models[0]))
    if not run_dir.recipe.is_file():
        raise UserError(f"{run_dir.path}: no run here; --follow takes the directory of a run")
    refuse_own_module(recipe.load(run_dir.recipe), run_dir)
    directory = wanted.directory or run_dir.path / results.DIRECTORY
    with DirectoryLock(directory) as lock:
        if not lock.acquire():
            raise UserError(f"{directory}: another process measures this run here; stop it first")
        remove_leftovers(directory)
        _Following(run_dir, directory, wanted, every, shown).run()


class _Following:
    """What has been measured and told so far."""

    def __init__(self, run_dir: RunDir, directory: Path, wanted: Wanted, every: int, shown: Shown) -> None:
        self._run_dir, self._directory, self._plot, self._shown = run_dir, directory, wanted.plot, shown
        self._every, self._prompt = every, wanted.prompt
        self._data = Data(run_dir, shown.say)
        self._measuring = Measuring(wanted.asked, DataSets(wanted.data), directory, shown.say, shown.report)
        self._newest: int | None = None  # state that was looked at
        self._num_passed_over = every  # states since the last that was measured; the first is measured
        self._untold: list[m.TellEvaluation] = []
        self._obstacle = ""  # why the newest state could not be taken, as people were told
        self._is_silent = False  # the coordinator, when it was last asked

    def run(self) -> None:
        """Until the run's last state is measured."""
        self._data.provide()
        is_last, changed = False, time.monotonic()
        while not is_last:
            if (state := self._new_state()) is not None:
                is_last, changed = self._looked_at(state), time.monotonic()
                continue
            if time.monotonic() - changed > QUIET_SECONDS:
                self._shown.tell(
                    f"no new state in {self._run_dir.path} for {QUIET_SECONDS / 60:.0f} minutes; does an "
                    "agent of the run work here?"
                )
                changed = time.monotonic()
            time.sleep(POLL_SECONDS)
        until = time.monotonic() + LAST_WORD_SECONDS
        while self._untold and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self._tell()
        if self._untold:
            self._shown.tell(f"the coordinator was not told of {len(self._untold)} states")

    def _new_state(self) -> State | None:
        """The newest state, unless it was looked at; None too while its commit record is not here yet."""
        step = newest_step(self._run_dir)
        if step is None or step == self._newest:
            return None
        try:
            return State(self._run_dir, step)
        except UserError as error:  # it cannot be proven yet, or is being replaced; or it is damaged
            if str(error) != self._obstacle:
                self._shown.say(f"state {step} cannot be measured yet: {error}")
            self._obstacle = str(error)
            return None

    def _looked_at(self, state: State) -> bool:
        """Measure a new state, if it is its turn; whether it is the last of the run."""
        self._newest = state.saved.step
        self._num_passed_over += 1
        is_last = state.saved.step == state.recipe.num_outer_steps
        if is_last or self._num_passed_over > self._every:
            self._measure(state)
            self._num_passed_over = 1
        return is_last

    def _measure(self, state: State) -> None:
        self._shown.say(f"state {state.saved.step} of {state.recipe.num_outer_steps}:")
        with state.as_checkpoint(self._directory) as (files, checkpoint, model):
            try:
                losses = heldout_losses(model, state.recipe, self._run_dir, self._data)
            except UserError as error:
                self._shown.tell(f"without held-out loss: {error}")
                losses = {}
            found = self._measuring.measure(files, checkpoint)
            samples = sampled(model, self._run_dir, self._prompt) if self._prompt else ()
        self._shown.results(found, self._measuring.left_out)
        for source, loss in losses.items():
            self._shown.tell(f"held-out {source}: {loss:.3f} nats per token")
        for text in samples:
            self._shown.tell(text)
        self._shown.curves(results.load(self._directory), checkpoint.run_id, self._plot)
        self._untold.append(
            m.TellEvaluation(
                step=state.saved.step,
                root=state.saved.root,
                scores=scores_of(found),
                heldout_losses=losses,
                samples=samples,
            )
        )
        self._tell()

    def _tell(self) -> None:
        """Tell the coordinator what it has not been told yet, if it answers."""
        while self._untold:
            try:
                operate.answered(self._run_dir, self._untold[0], m.EvaluationTold)
            except operate.NoAnswer as error:
                if not self._is_silent:
                    self._shown.tell(f"the coordinator will be told later: {error}")
                self._is_silent = True
                return
            except UserError as error:
                self._shown.tell(f"the coordinator does not take this: {error}")
            self._is_silent = False
            self._untold.pop(0)


def sampled(model: Model, run_dir: RunDir, prompt: str) -> tuple[str, ...]:
    """The prompt and how a state continues it, on one line. Raises UserError for one that is too long."""
    tokenizer = Tokenizer.load(run_dir.data / TOKENIZER_DIR / "tokenizer.json")
    tokens = [int(token) for token in tokenizer.encode_documents([prompt])[0]]
    (written,) = generate(model, [tokens], SAMPLING, frozenset(tokenizer.eos_ids))
    return (one_line(tokenizer.decode([*tokens, *written]), MAX_SAMPLE_LENGTH),)


def newest_step(run_dir: RunDir) -> int | None:
    """The newest state of which an agent has written an outer checkpoint here; None for none."""
    steps = [int(path.stem) for path in run_dir.islands.glob("*/outer/*.safetensors") if path.stem.isdigit()]
    return max(steps, default=None)


def scores_of(found: list[Result]) -> dict[str, Score]:
    """The figure that stands for each task."""
    scores: dict[str, Score] = {}
    for result in found:
        if (figure := figure_of(result)) is not None:
            scores[result.settings.task] = Score(figure[1].value, figure[1].standard_error)
    return scores
