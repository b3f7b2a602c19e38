"""The fault matrix with real processes: each kind of process killed or frozen in each phase.

tests/worlds/test_matrix.py has more cases, in one process.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import pytest
from faults.processes import World
from faults.test_own_loop import EXAMPLES, new_run

from atoll.events.log import EventReader
from atoll.swarm.records import CommitRecord, decode

# The islands only dial out, so the relay owns every slice: while it is frozen, a reduction stands still.
SETTINGS = "Settings(directory=Path(sys.argv[2]), dial_only=True)"
DIAL_ONLY = f"Path(sys.argv[2]), settings={SETTINGS}"
# Agents dial another coordinator once theirs was silent for 10 s.
FREEZE_SECONDS = {"trainer": 6.0, "agent": 8.0, "relay": 8.0, "coordinator": 14.0, "joiner": 6.0}
BOUND_SECONDS = 90.0


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("matrix")
    with new_run(directory, until=4_000_000) as world:
        program = (EXAMPLES / "own_loop.py").read_text()
        for old, new in (
            ("import torch\n", "import time\nimport torch\nfrom atoll.agent.settings import Settings\n"),
            ("join(sys.argv[1], Path(sys.argv[2]))", f"join(sys.argv[1], {DIAL_ONLY})"),
            ("            loss.backward()", "            time.sleep(0.02)\n            loss.backward()"),
        ):
            assert old in program
            program = program.replace(old, new)
        (directory / "slow_loop.py").write_text(program)
        world.host()
        for name in ("a", "b"):
            start(world, name)
        yield world


def start(world: World, name: str) -> None:
    path = os.pathsep.join([str(world.run_dir.path.parent), os.environ.get("PYTHONPATH", "")])
    world.start(name, ["slow_loop", world.ticket, str(world.run_dir.islands / name)], {"PYTHONPATH": path})


def agent_of(world: World, name: str) -> int:
    return int((world.run_dir.islands / name / "agent.pid").read_text())


def process_of(world: World, role: str) -> int:
    match role:
        case "trainer":
            return world.children["a"].process.pid
        case "agent":
            return agent_of(world, "a")
        case "relay":
            return agent_of(world, "relay")
        case "joiner":
            return agent_of(world, "j")
    return world.children["host"].process.pid


def soon(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, looking every 2 ms: phases last milliseconds."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {BOUND_SECONDS:.0f} s: {what}"
        time.sleep(0.002)


def proposals(world: World) -> dict[str, int]:
    """When each island has encoded its last payload, in nanoseconds; it is gone while the next is encoded."""
    found: dict[str, int] = {}
    for name in ("a", "b"):
        with contextlib.suppress(FileNotFoundError):
            found[name] = (world.run_dir.islands / name / "payload.kept").stat().st_mtime_ns
    return found


def hold_a_reduction(world: World) -> None:
    """Freeze the only owner once the first island has proposed, so that the next attempt stands still."""
    events = world.run_dir.path / "events.jsonl"
    for _ in range(20):
        before = proposals(world)
        soon(lambda before=before: proposals(world).items() - before.items(), "an island proposes")
        os.kill(agent_of(world, "relay"), signal.SIGSTOP)
        offset = events.stat().st_size
        until = time.monotonic() + 3.0  # after that the coordinator knows that the relay is frozen
        while time.monotonic() < until:
            if any(e.kind == "attempt" for e in EventReader(events, offset).read()):
                return
            time.sleep(0.01)
        os.kill(agent_of(world, "relay"), signal.SIGCONT)  # too late: both islands proposed at once
        time.sleep(1.0)
    raise AssertionError("no reduction could be held up")


def records(world: World, name: str) -> list[CommitRecord]:
    found = []
    for path in sorted((world.run_dir.islands / name / "log").glob("*.commit")):
        found.append(decode(path.read_bytes(), CommitRecord))
    return found


@dataclass(frozen=True)
class Case:
    """Which process is hit, in which phase, and by what."""

    role: str
    phase: str
    fault: str

    def __str__(self) -> str:
        return f"{self.role}-{self.phase}-{self.fault}"

    def play(self, world: World) -> None:
        """Strike, end the fault, see all take part again, and check the history that the islands keep."""
        everybody = ("a", "b", "j") if self.phase == "recovery" else ("a", "b")
        self._all_take_part(world, ("a", "b"))
        history = records(world, "b")
        try:
            self._play(world, everybody, history)
        finally:
            if self.phase == "recovery":
                world.children.pop("j").kill()

    def _play(self, world: World, everybody: tuple[str, ...], history: list[CommitRecord]) -> None:
        if self.phase == "recovery":
            start(world, "j")
        self._moment(world)
        victim = process_of(world, self.role)
        os.kill(victim, signal.SIGKILL if self.fault == "kill" else signal.SIGSTOP)
        if self.phase == "reduce" and self.role not in ("relay", "coordinator"):
            os.kill(agent_of(world, "relay"), signal.SIGCONT)
        self._lift(world, victim)
        self._all_take_part(world, everybody)
        check(world, everybody, history)

    def _moment(self, world: World) -> None:
        """Return as soon as island a is in the phase."""
        island = world.run_dir.islands / "a"
        events = world.run_dir.path / "events.jsonl"
        offset = events.stat().st_size
        seen = {path.name for path in (island / "log").iterdir()}
        proposed = proposals(world)

        def event(kind: str, name: str) -> bool:
            expected = (kind, world.island_id(name))
            return any((e.kind, e.island) == expected for e in EventReader(events, offset).read())

        def new_file(suffix: str) -> bool:
            return any(path.suffix == suffix and path.name not in seen for path in (island / "log").iterdir())

        match self.phase:
            case "inner":
                soon(lambda: event("ready", "a"), "a trains")
            case "propose":
                soon(lambda: proposals(world)["a"] != proposed["a"], "a proposes")
            case "reduce":
                hold_a_reduction(world)
            case "held":
                soon(lambda: new_file(".entry"), "a holds an update")
            case "committed":
                soon(lambda: new_file(".commit"), "a stores a commit record")
            case "recovery":
                soon((world.run_dir.islands / "j" / "agent.pid").exists, "j has an agent")
                soon(lambda: event("joined", "j"), "j joins")

    def _lift(self, world: World, victim: int) -> None:
        """End the fault. Start again what was killed, if nothing else does, by the same command."""
        if self.fault == "freeze":
            time.sleep(FREEZE_SECONDS[self.role])
            os.kill(victim, signal.SIGCONT)
            if self.phase == "reduce" and self.role == "coordinator":
                os.kill(agent_of(world, "relay"), signal.SIGCONT)
        elif self.role == "trainer":
            world.children["a"].kill()
            world.until_step(len(world.events("committed")) + 2, BOUND_SECONDS)
            start(world, "a")
        elif self.role == "coordinator":
            world.children["host"].kill()
            if self.phase == "reduce":
                os.kill(agent_of(world, "relay"), signal.SIGCONT)  # it ends with its coordinator, once it can
            world.host()

    def _all_take_part(self, world: World, everybody: tuple[str, ...]) -> None:
        memberships = [world.run_dir.islands / name / "membership.msgpack" for name in everybody]
        soon(lambda: all(path.exists() for path in memberships), "all enrol")
        for name in everybody:
            world.until_taking_part(name, after=len(world.events("committed")), seconds=BOUND_SECONDS)


def check(world: World, names: tuple[str, ...], history: list[CommitRecord]) -> None:
    """Check that all islands keep one history, that trainers loaded its states, and that tokens add up."""
    status = world.status()
    assert status is not None
    assert not world.events("unequal")
    kept = [records(world, name) for name in names]
    longest = max(kept, key=len)
    assert longest[: len(history)] == history
    for left, right in pairwise(longest):
        assert (right.previous, right.parent) == (left.digest(), left.next_root)
    assert all(own == longest[: len(own)] for own in kept), "an island has another history"
    roots = {record.step + 1: record.next_root.hex() for record in longest}
    for event in world.events("ready"):
        assert event.root == roots.get(event.step, event.root)
    step = status.step
    world.until(lambda: len(records(world, "b")) >= step, "b has all that was committed")
    assert status.committed_tokens == sum(record.tokens for record in records(world, "b")[:step])
    spent = sorted(span for record in longest for _, lease in record.leases for span in lease)
    assert all(sum(left) <= right[0] for left, right in pairwise(spent)), "a sample was spent twice"


FAULTS = ("kill", "freeze")
PHASES = ("inner", "propose", "reduce", "held", "committed")
CASES = [
    *(Case(*case) for case in product(("trainer", "agent", "relay", "coordinator"), PHASES, FAULTS)),
    *(Case(*case) for case in product(("joiner", "relay", "coordinator"), ("recovery",), FAULTS)),
]
DEFAULT = Case("agent", "reduce", "freeze")


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=str(c), marks=[] if c == DEFAULT else [pytest.mark.slow]) for c in CASES]
)
def test_the_run_goes_on(case: Case, world: World) -> None:
    case.play(world)
