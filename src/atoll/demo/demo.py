"""`atoll demo`: three islands on this machine learn together, one dies and comes back, a model comes out."""

import contextlib
import shutil
import time
from pathlib import Path

import msgspec

from atoll import recipe as recipes
from atoll.demo import report
from atoll.demo.story import Story
from atoll.demo.summary import Spent
from atoll.errors import UserError
from atoll.events import Committed, Joined
from atoll.events.log import EventReader
from atoll.files import write_atomic
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.run.genesis import check_model, prepare
from atoll.run.local import LocalSwarm
from atoll.status import IslandStatus, RunStatus
from atoll.terminal import Host, Picture, Preparing, Terminal, clock
from atoll.terminal.keys import Keys

NUM_ISLANDS = 3
DOOMED = 2  # dies in the middle, unless a person chooses another
KILL_AT = 0.35  # of the outer steps
STEPS_WITHOUT = 2  # committed by the survivors before it is started again
POLL_SECONDS = 0.5
MARKER = "made-by-atoll-demo"


def demo(recipe_name: str, overrides: list[str], directory: Path) -> None:
    """Run the demo; print its summary, and keep it in `directory`/summary.json.

    Raises UserError, and RuntimeError when a process dies that should not.
    """
    with Terminal() as terminal:
        _demo(recipes.load(recipe_name, overrides), RunDir(directory), terminal)


def _demo(recipe: recipes.Recipe, run_dir: RunDir, terminal: Terminal) -> None:
    started = time.time()
    check_model(recipe)  # before an earlier demo is deleted
    _clear(run_dir)
    preparing = Preparing(terminal)
    preparing.done(prepare(recipe, run_dir, preparing.report))
    demonstration = Demo(run_dir, recipe, terminal)
    try:
        terminal.busy("starting a coordinator, and three islands")
        demonstration.start()
        demonstration.watch()
    finally:
        terminal.clear()
        terminal.say("stopping what was started")
        demonstration.stop()
    terminal.busy("measuring the model, exporting it, and comparing it with transformers")
    summary = report.summarise(
        run_dir,
        recipe,
        demonstration.story,
        demonstration.names,
        demonstration.spent(),
        demonstration.ledger,
        started,
    )
    encoded = msgspec.json.format(msgspec.json.encode(summary), indent=1)
    write_atomic(run_dir.path / "summary.json", encoded)
    terminal.clear()
    report.show(summary, terminal)


class Demo:
    """A coordinator and its islands, watched."""

    def __init__(self, run_dir: RunDir, recipe: recipes.Recipe, terminal: Terminal) -> None:
        self.run_dir = run_dir
        self.recipe = recipe
        self.terminal = terminal
        self.story = Story()
        self.picture = Picture()
        threads = f"island.threads={recipe.island.threads or 1}"
        self._swarm = LocalSwarm(run_dir, [threads, f"island.micro_batch={recipe.island.micro_batch}"])
        self._speaker = Host(terminal, recipe.num_outer_steps)
        self._events = EventReader(run_dir.events)
        self._status: RunStatus | None = None  # the last that the coordinator gave
        self._rows: dict[tuple[str, int], IslandStatus] = {}  # (island, life) -> its last status
        self._lives: dict[str, int] = {}
        self._doomed = 0

    def start(self) -> None:
        """Start the coordinator, then the islands: a process for each trainer and each agent."""
        self._swarm.host()
        for number in range(1, NUM_ISLANDS + 1):
            self._start_island(number)

    def watch(self) -> None:
        """Until every island has finished; in the middle one is killed, and started again."""
        with Keys() as keys:
            if keys.there:
                self.picture.keys = f"keys: 1-{NUM_ISLANDS} kill an island, Ctrl-C ends the demo"
            while self._swarm.trains:
                self._swarm.check()
                self._read_events()
                self._read_status()
                self._kill_or_revive(self._answered(keys.pressed()))
                self._show()
                time.sleep(POLL_SECONDS)
            self._read_events()
            self._read_status()
        self.terminal.clear()
        self._swarm.check()

    def stop(self) -> None:
        """End everything that was started, however far it came."""
        self._swarm.stop()
        self._read_events()
        if complaint := self._events.complaint:
            self.terminal.tell(complaint)

    def spent(self) -> Spent:
        """Bytes and seconds of all lives of all islands, the relay and the coordinator."""
        rows = list(self._rows.values())
        by_coordinator = self._status.sent_bytes if self._status else 0
        return Spent(
            sent_bytes=by_coordinator + sum(row.sent_bytes for row in rows),
            compute_seconds=sum(row.metrics.compute_seconds for row in rows),
            communicate_seconds=sum(row.metrics.communicate_seconds for row in rows),
            wait_seconds=sum(row.metrics.wait_seconds for row in rows),
        )

    @property
    def ledger(self) -> dict[str, dict[str, int]]:
        """Committed tokens by contributor, then source, when the coordinator last answered."""
        return self._status.ledger if self._status else {}

    @property
    def names(self) -> dict[str, str]:
        """The demo's names of its islands, by id."""
        return self.picture.names

    # -------------------------------------------------------------------------------------- death and return
    def _answered(self, key: str) -> int:
        """The number of the island whose key was pressed, if it can be killed; else 0, and why not."""
        if not key:
            return 0
        if key not in map(str, range(1, NUM_ISLANDS + 1)):
            self._note(f"no key here: {key!r}; {self.picture.keys}")
        elif self._doomed:
            self._note(f"one death is enough for a demo: island-{self._doomed} has had it")
        elif f"island-{key}" not in self.names.values():
            self._note(f"island-{key} has not joined yet; press again when it has")
        else:
            return int(key)
        return 0

    def _kill_or_revive(self, pressed: int) -> None:
        story, head = self.story, len(self.story.commits)
        if not self._doomed:
            due = head >= max(1, int(KILL_AT * self.recipe.num_outer_steps))
            if number := pressed or (DOOMED if due else 0):
                self._kill(number)
        elif not story.restarted_at and story.noticed is not None:
            since = [commit for commit in story.commits if commit.time > story.killed_at]
            if sum(story.watched not in commit.participants for commit in since) >= STEPS_WITHOUT:
                self._note(f"starting island-{self._doomed} again, with the command it was started with")
                story.restarted_at = time.time()
                self._start_island(self._doomed)

    def _kill(self, number: int) -> None:
        """SIGKILL to trainer and agent at once, as a power cut would."""
        ids = [island for island, name in self.names.items() if name == f"island-{number}"]
        if not ids:
            return  # it has not even joined
        self._doomed, self.story.watched = number, ids[0]
        self._note(f"killing island-{number} (SIGKILL to its trainer and its agent)")
        self.story.killed_at = time.time()
        self._swarm.kill(number)

    def _start_island(self, number: int) -> None:
        self._swarm.join(number, *(["island.evaluate_every=1"] if number == 1 else []))

    # ------------------------------------------------------------------------------------------------ looking
    def _read_events(self) -> None:
        for event in self._events.read():
            self.story.add(event)
            if isinstance(event, Joined):
                self.names[event.island] = event.contributor or event.island
                self._lives[event.island] = self._lives.get(event.island, 0) + 1
            if isinstance(event, Committed):
                self.picture.losses += [event.loss] if event.loss is not None else []
                self.picture.committed_at.append(event.time)
            if line := self._speaker.line(event):
                self._note(line, event.time)

    def _read_status(self) -> None:
        with contextlib.suppress(UserError):  # between a death and the next poll a question may go unanswered
            self._status = self.picture.status = operate.status(self.run_dir)
            for row in self._status.islands:
                if row.present:
                    self._rows[row.island, self._lives.get(row.island, 0)] = row

    def _note(self, text: str, at: float = 0.0) -> None:
        """A line; into the picture, where there is one."""
        line = f"{clock(at or time.time())}  {text}"
        self.picture.told.append(line)
        if not self.terminal.is_live:
            self.terminal.tell(line)

    def _show(self) -> None:
        if self.terminal.is_live:
            size = self.terminal.console.size
            self.terminal.show(self.picture.draw(size.width, size.height, time.time()))


def _clear(run_dir: RunDir) -> None:
    """Make room for a new demo where an old one was; anything else is left alone."""
    marker = run_dir.path / MARKER
    if run_dir.path.exists() and any(run_dir.path.iterdir()) and not marker.exists():
        raise UserError(
            f"{run_dir.path}: already there and not from an earlier demo; give another with --dir"
        )
    if run_dir.path.exists():
        shutil.rmtree(run_dir.path)
    write_atomic(marker, b"`atoll demo` may delete this directory\n")
