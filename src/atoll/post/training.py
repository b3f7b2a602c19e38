"""One run of a recipe on this machine, alone or as a swarm, from its data to its checkpoint."""

import os
import shutil
import threading
import time
from pathlib import Path

import msgspec

from atoll.data.manifest import Manifest
from atoll.errors import UserError
from atoll.events import Committed
from atoll.events.log import EventReader
from atoll.given import named
from atoll.post.command import POLL_SECONDS, Failed, Quiet, Stopped, atoll
from atoll.publish.states import committed_state
from atoll.recipe import Recipe
from atoll.recipe.objective import REFERENCE
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.run.local import LocalSwarm

MODEL = "model"  # the checkpoint, in the run's directory
KILL_AT = 0.4  # of the outer steps, in a drill
STEPS_WITHOUT = 1  # committed by the others before the island comes back

_PREPARING = threading.Lock()  # one after the other: it is work of this process, and fills the machine


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How runs are trained."""

    data: Path | None = None  # a run's directory whose prepared data are taken
    islands: int = 1  # of a run, on this machine
    drill: bool = False  # kill one of them in the middle; it comes back
    start: RunDir | None = None  # the run whose newest committed state they begin with
    at_once: int = 1  # runs side by side

    def threads(self, recipe: Recipe) -> int | None:
        """Of an island: side by side they share the cores, since more threads than cores are many times
        slower; None where torch may decide.
        """
        if self.islands == self.at_once == 1:
            return recipe.island.threads
        if self.at_once == 1:
            return recipe.island.threads or 1
        share = max(1, (os.cpu_count() or 1) // (self.islands * self.at_once))
        return min(recipe.island.threads or share, share)


def train(recipe: Recipe, run_dir: RunDir, how: Training, stop: threading.Event) -> bool:
    """Train a run to its end, and export it to `run_dir.path / MODEL`; whether a drill was held.

    What is finished is not done again, and what was interrupted goes on. Raises Failed where it does not get
    to its end, Stopped once `stop` is set, UserError for what cannot be used.
    """
    model = run_dir.path / MODEL
    if model.exists():
        return how.drill
    with _PREPARING:
        if stop.is_set():
            raise Stopped
        if how.data is not None:
            take_data(RunDir(how.data).data, run_dir.data)
        prepare(recipe, run_dir, lambda _: None, start=how.start)
    if REFERENCE in set(recipe.objective.columns) - _captured(run_dir):
        atoll("capture", str(run_dir.path), log=run_dir.path / "capture.log", stop=stop)
    threads = how.threads(recipe)
    own = [f"island.threads={threads}"] if threads else []
    was_held = False
    if _is_finished(recipe, run_dir):  # by whoever trained it
        was_held = how.drill
    elif how.islands == 1:
        atoll("train", str(run_dir.path), *own, log=run_dir.path / "train.log", stop=stop)
    else:
        was_held = _swarm(recipe, run_dir, own, how, stop)
    atoll("export", str(run_dir.path), str(model), log=run_dir.path / "export.log", stop=stop)
    return was_held


def _swarm(recipe: Recipe, run_dir: RunDir, own: list[str], how: Training, stop: threading.Event) -> bool:
    swarm = LocalSwarm(run_dir, own)
    try:
        swarm.host("--wait-for", str(how.islands))
        for number in range(1, how.islands + 1):
            swarm.join(number)
        return _watch(swarm, recipe, how, stop)
    except RuntimeError as error:
        raise Failed(str(error)) from error
    finally:
        swarm.stop()


def _watch(swarm: LocalSwarm, recipe: Recipe, how: Training, stop: threading.Event) -> bool:
    """Until all islands have finished; in a drill the second one is killed and comes back, if there is time.

    Whether it did.
    """
    events, quiet = EventReader(swarm.run_dir.events), Quiet(swarm.run_dir.events)
    head, killed_at, is_back = 0, 0, False
    while swarm.trains:
        swarm.check()
        quiet.check("the swarm")
        if stop.is_set():
            raise Stopped
        head = max([head, *(event.step + 1 for event in events.read() if isinstance(event, Committed))])
        if how.drill and not killed_at and head >= max(1, int(KILL_AT * recipe.num_outer_steps)):
            swarm.kill(2)
            killed_at = head
        if killed_at and not is_back and head >= killed_at + STEPS_WITHOUT:
            swarm.join(2)
            is_back = True
        time.sleep(POLL_SECONDS)
    swarm.check()
    return is_back


def _is_finished(recipe: Recipe, run_dir: RunDir) -> bool:
    """Whether the run's last state is at hand here."""
    try:
        return committed_state(run_dir, recipe.num_outer_steps).step == recipe.num_outer_steps
    except UserError:
        return False


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
