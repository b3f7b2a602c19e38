"""`atoll evaluate MODEL...`: measures what is not known yet, and shows it beside published figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.evaluate import results
from atoll.evaluate.checkpoint import Files
from atoll.evaluate.curve import curves
from atoll.evaluate.data import DataSets
from atoll.evaluate.figure import draw, refuse_other
from atoll.evaluate.hub import fetched
from atoll.evaluate.measure import Asked, Measuring
from atoll.evaluate.results import Result
from atoll.evaluate.table import table
from atoll.given import named
from atoll.terminal import Terminal
from atoll.terminal.scores import Scores

if TYPE_CHECKING:  # what reads a run's states takes a second to import, and only a run needs it
    from atoll.evaluate.states import State

RECIPE = "recipe.json"  # in the directory of a run


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks for."""

    models: tuple[str, ...]
    asked: Asked
    data: Path | None = None
    directory: Path | None = None  # of results
    plot: Path | None = None
    prompt: str = ""  # that each state of a run which is followed continues; none where it is empty


class Shown:
    """What people see of it; only its warnings without `is_shown`."""

    def __init__(self, terminal: Terminal, is_shown: bool = True) -> None:
        self.say, self.tell = terminal.say, terminal.tell
        self._scores, self._is_shown = Scores(terminal), is_shown
        self.report = self._scores.report

    def results(self, found: Sequence[Result], left_out: Sequence[str] = ()) -> None:
        """The table, and what is not in it."""
        if self._is_shown:
            self._scores.table(table(found))
            for sentence in left_out:
                self.tell(f"not measured: {sentence}")

    def curves(self, found: Sequence[Result], run_id: str, plot: Path | None) -> None:
        """Scores over tokens, if there are two states or more; on the terminal, and as a PNG if wanted."""
        drawn = curves(found, run_id) if run_id else []
        if self._is_shown:
            for curve in drawn:
                self._scores.curve(curve)
        if plot is None:
            return
        if not drawn:
            self.tell(f"{named(plot)} is not drawn: a curve needs two states of one run, measured alike")
            return
        draw(plot, drawn)
        self.tell(f"the curves are in {named(plot)}")


def measured(wanted: Wanted, shown: Shown) -> list[Result]:
    """The results of all questions to all models, shown as well.

    Raises UserError for what is no model, before anything is asked, and as `Measuring.measure` does.
    """
    refuse_other(wanted.plot)
    directory = wanted.directory or default_directory(wanted.models)
    opened = [_Model(model) for model in wanted.models]
    data = DataSets(wanted.data)
    measuring = Measuring(wanted.asked, data, directory, shown.say, shown.report)
    found = [result for model in opened for result in model.measured(measuring, directory)]
    shown.results(found, measuring.left_out)
    run_id = next((result.checkpoint.run_id for result in found if result.checkpoint.run_id), "")
    shown.curves([*results.load(directory), *found], run_id, wanted.plot)
    return found


def default_directory(models: Sequence[str]) -> Path:
    """Where results are kept: with a run if it is the only thing that is measured, else here."""
    path = Path(models[0])
    if len(models) == 1 and (path / RECIPE).is_file():
        return path / results.DIRECTORY
    return Path(results.DIRECTORY)


class _Model:
    """One of the models: a checkpoint, or a run's newest state."""

    _given: "Files | State"

    def __init__(self, model: str) -> None:
        """Raises UserError where it is neither."""
        if not (Path(model) / RECIPE).is_file():
            self._given = Files(fetched(model), name=model)
            return
        from atoll.evaluate.states import State
        from atoll.run.directory import RunDir

        self._given = State(RunDir(Path(model)))

    def measured(self, measuring: Measuring, directory: Path) -> list[Result]:
        if isinstance(self._given, Files):
            return measuring.measure(self._given, self._given.described())
        with self._given.as_checkpoint(directory) as (files, described, _):
            return measuring.measure(files, described)
