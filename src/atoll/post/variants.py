"""The variants of a recipe: trained one after the other or side by side, and ranked by how well they did."""

import math
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.files import write_atomic
from atoll.given import named
from atoll.post.command import Failed
from atoll.post.metric import HeldoutLoss, metric_of
from atoll.post.training import MODEL, Training, train
from atoll.recipe import Recipe
from atoll.recipe.metric import By
from atoll.recipe.variants import Variant
from atoll.run.directory import RunDir

RANKING, SCORES = "ranking.txt", "evaluations"

Say = Callable[[str], None]


class Trained(NamedTuple):
    """What became of a run."""

    name: str  # of the variant; "" where the recipe has none
    model: Path | None  # the checkpoint; None where training failed
    value: float | None  # of the metric; None where training failed
    failure: str = ""
    note: str = ""


class Ranking(NamedTuple):
    """What became of all runs, the best first, those that failed last."""

    metric: str  # what they are ranked by
    runs: list[Trained]

    @property
    def best(self) -> Trained:
        return self.runs[0]


def train_all(
    source: str | Path,
    overrides: Sequence[str],
    directory: Path,
    how: Training = Training(),  # noqa: B008 (frozen)
    *,
    variants: Sequence[Variant] = (),
    by: By | None = None,
    say: Say = lambda _: None,
) -> Ranking:
    """Train a recipe, or each of its variants, in `directory`, and keep the table of how well each did there.

    Each run has a directory of its own, with its checkpoint in `model`. A run that is finished is not done
    again, and one that was interrupted goes on. `variants`: in the place of the recipe's own. `by`: what they
    are ranked by; none given: what the recipe names, or else the loss on what each run holds out. A variant
    that fails, or whose figure is not finite, is ranked last, and the others go on. Raises UserError for
    what cannot be used, and where every run failed.
    """
    own = recipes.variants(source)
    chosen = {variant.name: variant for variant in (variants or own.variant)}
    loaded = {name: recipes.load(source, list(overrides), one) for name, one in (chosen or {"": ""}).items()}
    by = by or own.rank_by
    metric = metric_of(by, directory / SCORES) if by else None
    done: list[Trained] = []
    measured_by = metric or HeldoutLoss
    with closing(_trained(loaded, directory, how, say)) as ended:
        for name, was_held in ended:
            run_dir, title = RunDir(directory / (name or "run")), name or loaded[name].name
            note = chosen[name].note if name else ""
            try:
                if isinstance(was_held, Failed):
                    raise was_held
                measure = metric or HeldoutLoss(run_dir.path)
                value = measure(run_dir.path / MODEL)
                if not math.isfinite(value):
                    raise Failed(f"its {measure.name} is {value}")
            except Failed as error:
                if not chosen:
                    raise UserError(str(error)) from error
                say(f"{title}: {error}; the other variants go on")
                done.append(Trained(name, None, None, str(error), note))
                continue
            if how.drill and not was_held:
                say(f"{title}: too short, or too few islands: none was killed and came back")
            say(f"{title}: {measure.name} {value:.4f}")
            done.append(Trained(name, run_dir.path / MODEL, value, note=note))
    sign, order = -1.0 if measured_by.higher_is_better else 1.0, list(loaded)
    done.sort(key=lambda one: (math.inf if one.value is None else sign * one.value, order.index(one.name)))
    ranking = Ranking(measured_by.name, done)
    write_atomic(directory / RANKING, table(ranking).encode())
    if ranking.best.model is None:
        raise UserError(f"{source}: every variant failed; the first: {ranking.best.failure}")
    return ranking


def _trained(
    loaded: dict[str, Recipe], directory: Path, how: Training, say: Say
) -> Generator[tuple[str, bool | Failed], None, None]:
    """Yield each variant when it has ended, with whether it was drilled, or why it failed.

    As many are trained at once as `how` says. Closing this ends all that are under way.
    """
    stop, lock = threading.Event(), threading.Lock()

    def one(name: str) -> tuple[str, bool | Failed]:
        run_dir = RunDir(directory / (name or "run"))
        with lock:  # several threads speak
            say(f"{name or loaded[name].name}: training in {named(run_dir.path)}")
        try:
            return name, train(loaded[name], run_dir, how, stop)
        except Failed as error:
            return name, error

    if how.at_once == 1:  # in this thread, which Ctrl-C reaches in the middle of a preparation too
        yield from map(one, loaded)
        return
    with ThreadPoolExecutor(how.at_once) as threads:
        futures = [threads.submit(one, name) for name in loaded]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()
            for future in futures:
                future.cancel()


def table(ranking: Ranking) -> str:
    """The variants for people, the best first."""
    width = max(len(ranking.metric), 10)
    lines = [f"{ranking.metric:>{width}}  variant"]
    for one in ranking.runs:
        value = "failed" if one.value is None else f"{one.value:.4f}"
        words = "; ".join(text for text in (one.failure, one.note) if text)
        lines.append(f"{value:>{width}}  {one.name or 'run'}  {words}".rstrip())
    return "\n".join(lines) + "\n"
