"""Runs of one recipe on this machine, alone or as a swarm, and its variants by how well they did."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from atoll import recipe as recipes
from atoll.data.manifest import Manifest
from atoll.errors import UserError
from atoll.events import Committed
from atoll.events.log import EventReader
from atoll.files import write_atomic
from atoll.given import named
from atoll.post.command import Failed, atoll
from atoll.post.metric import HeldoutLoss
from atoll.recipe import Recipe
from atoll.recipe.objective import REFERENCE
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.run.local import LocalSwarm

KILL_AT = 0.4  # of the outer steps, in a drill
STEPS_WITHOUT = 1  # committed by the others before the island comes back
POLL_SECONDS = 0.3

Say = Callable[[str], None]


class Trained(NamedTuple):
    """What became of a run."""

    name: str  # of the variant; "" where the recipe has none
    model: Path | None  # the checkpoint; None where training failed
    loss: float  # on what was held out; infinite where training failed
    failure: str = ""


def train_all(
    source: str | Path,
    overrides: Sequence[str],
    directory: Path,
    *,
    data: Path | None = None,
    islands: int = 1,
    drill: bool = False,
    start: RunDir | None = None,
    say: Say = lambda _: None,
) -> list[Trained]:
    """Train a recipe, or each of its variants, in `directory`; the best comes first.

    Each run has a directory of its own, with its checkpoint in `model`. A run that is finished is not done
    again, and one that was interrupted goes on. `data`: a run's directory whose prepared data are taken.
    `islands`: how many train on this machine; in a `drill` one is killed in the middle, and comes back.
    `start`: the run whose newest committed state they begin with. A variant that fails is ranked last. Raises
    UserError for what cannot be used, and where every run failed.
    """
    names = recipes.variants(source) or [""]
    done: list[Trained] = []
    for name in names:
        recipe = recipes.load(source, list(overrides), name)
        run_dir = RunDir(directory / (name or "run"))
        model = run_dir.path / "model"
        say(f"{name or recipe.name}: training in {named(run_dir.path)}")
        try:
            if not model.exists():
                if not _train(recipe, run_dir, data, islands, drill, start) and drill:
                    say(
                        f"{name or recipe.name}: too short, or too few islands: none was killed and came back"
                    )
                atoll("export", str(run_dir.path), str(model), log=run_dir.path / "export.log")
            loss = HeldoutLoss(run_dir.path)(model)
        except Failed as error:
            if len(names) == 1:
                raise UserError(str(error)) from error
            say(f"{name}: {error}; the other variants go on")
            done.append(Trained(name, None, float("inf"), str(error)))
            continue
        say(f"{name or recipe.name}: held-out loss {loss:.4f}")
        done.append(Trained(name, model, loss))
    ranked = sorted(done, key=lambda trained: trained.loss)
    if ranked[0].model is None:
        raise UserError(f"{source}: every variant failed; the first: {done[0].failure}")
    return ranked


def _train(
    recipe: Recipe, run_dir: RunDir, data: Path | None, islands: int, drill: bool, start: RunDir | None
) -> bool:
    """Train a run to its end; whether the drill was held. Raises Failed where it does not get there."""
    if data is not None:
        take_data(RunDir(data).data, run_dir.data)
    prepare(recipe, run_dir, lambda _: None, start=start)
    if REFERENCE in set(recipe.objective.columns) - _captured(run_dir):
        atoll("capture", str(run_dir.path), log=run_dir.path / "capture.log")
    if islands == 1:
        atoll("train", str(run_dir.path), log=run_dir.path / "train.log")
        return False
    swarm = LocalSwarm(run_dir, [f"island.threads={recipe.island.threads or 1}"])
    try:
        swarm.host("--wait-for", str(islands))
        for number in range(1, islands + 1):
            swarm.join(number)
        return _watch(swarm, recipe, drill)
    except RuntimeError as error:
        raise Failed(str(error)) from error
    finally:
        swarm.stop()


def _watch(swarm: LocalSwarm, recipe: Recipe, drill: bool) -> bool:
    """Until all islands have finished; in a drill the second one is killed and comes back, if there is time.

    Whether it did.
    """
    events = EventReader(swarm.run_dir.events)
    head, killed_at, is_back = 0, 0, False
    while swarm.trains:
        swarm.check()
        head = max([head, *(event.step + 1 for event in events.read() if isinstance(event, Committed))])
        if drill and not killed_at and head >= max(1, int(KILL_AT * recipe.num_outer_steps)):
            swarm.kill(2)
            killed_at = head
        if killed_at and not is_back and head >= killed_at + STEPS_WITHOUT:
            swarm.join(2)
            is_back = True
        time.sleep(POLL_SECONDS)
    swarm.check()
    return is_back


def take_prepared(source: RunDir, target: RunDir) -> None:
    """Give a run the prepared data and the state 0 of another."""
    take_data(source.data, target.data)
    take_data(source.genesis, target.genesis)


def take_data(source: Path, target: Path) -> None:
    """Make a directory what another is, unless it is there; without copying where files can be shared.

    Files of prepared data, and of state 0, are never written again, only replaced.
    """
    if not source.is_dir():
        raise UserError(f"{named(source)}: nothing is prepared here")
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)

    def link(original: str, copy: str) -> str:
        try:
            Path(copy).hardlink_to(original)
        except OSError:
            shutil.copyfile(original, copy)
        return copy

    shutil.copytree(source, partial, copy_function=link)
    partial.replace(target)


def _captured(run_dir: RunDir) -> set[str]:
    return {column.name for column in Manifest.load(run_dir.data).columns}


def keep_ranking(ranked: Sequence[Trained], path: Path) -> None:
    """Write the table of a recipe's variants, the best first, for people."""
    lines = [f"{one.loss:10.4f}  {one.name or 'run'}  {one.failure}".rstrip() for one in ranked]
    write_atomic(path, ("\n".join(["  held-out  variant", *lines]) + "\n").encode())
