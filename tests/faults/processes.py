"""Real processes for tests: a host and islands of a run on loopback, started as a user would start them."""

import os
import time
from pathlib import Path

from atoll.agent import membership
from atoll.errors import UserError
from atoll.events import Event
from atoll.events.log import EventReader
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.run.host import kept_ticket, wait_for_ticket
from atoll.run.processes import Child
from atoll.status import RunStatus
from atoll.swarm.address import HostPorts
from atoll.swarm.identity import Ticket


class World:
    """One run in a directory. As a context manager it stops all processes at the end."""

    def __init__(self, directory: Path, recipe: str) -> None:
        self.run_dir = RunDir(directory)
        self.recipe = recipe
        self.children: dict[str, Child] = {}
        self.ticket = ""

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children.values():
            child.socket.close()
        for child in self.children.values():
            child.stop(2.0)  # a loop of one's own does not watch the leash: it is killed

    def host(self, *extra: str) -> None:
        """Start the coordinator, again on the ports that it had, and wait for its ticket."""
        kept = self.run_dir.coordinator / "ticket"
        before = kept_ticket(kept)
        ports = Ticket.parse(self.ticket).hosts[0] if self.ticket else HostPorts("127.0.0.1", 0, 0, 0)
        options = ["--dir", str(self.run_dir.path), "--listen", str(ports.for_members)]
        options += ["--enrol-port", str(ports.enrolment), "--relay-port", "0", *extra]
        self.children["host"] = Child(["atoll", "host", self.recipe, *options], log=self.log("host"))
        self.ticket = wait_for_ticket(kept, self.children["host"], before)

    def join(self, name: str, *extra: str) -> None:
        """Start an island by `atoll join`."""
        where = ["--dir", str(self.run_dir.path), "--listen", "127.0.0.1:0", "--no-check"]
        self.start(
            name, ["atoll", "join", self.ticket, *where, "--name", name, "--contributor", name, *extra]
        )

    def start(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        """Start `python -m` with `arguments`."""
        environment = {"OMP_NUM_THREADS": "1", **(environment or {})}
        self.children[name] = Child(arguments, log=self.log(name), environment=environment)

    def log(self, name: str) -> Path:
        path = self.run_dir.path / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def kill_agent(self, name: str) -> None:
        os.kill(int((self.run_dir.islands / name / "agent.pid").read_text()), 9)

    def events(self, kind: str = "") -> list[Event]:
        reader = EventReader(self.run_dir.path / "events.jsonl")
        return [event for event in reader.read() if kind in ("", event.kind)]

    def participants(self) -> set[str]:
        """The participants of all commits."""
        return {island for commit in self.events("committed") for island in commit.participants}

    def island_id(self, name: str) -> str:
        member = membership.load(self.run_dir.islands / name)
        assert member is not None, f"{name} has not enrolled"
        return member.island

    def until(self, condition, what: str, seconds: float = 60.0) -> None:
        """Wait for a condition; fail, naming `what` and the ends of all logs, if it takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                tail = "\n".join(e.text for e in self.events()[-15:])
                paths = (self.run_dir.path / "logs").glob("*.log")
                logs = "\n".join(f"{path.name}: {path.read_text()[-600:]}" for path in paths)
                raise AssertionError(f"not within {seconds} s: {what}\n{tail}\n{logs}")
            time.sleep(0.1)

    def until_step(self, step: int, seconds: float = 60.0) -> None:
        self.until(lambda: len(self.events("committed")) >= step, f"step {step}", seconds)

    def until_taking_part(self, name: str, after: int, seconds: float = 60.0) -> None:
        """Wait until the island takes part in a commit after the first `after` ones."""
        island = self.island_id(name)
        self.until(
            lambda: any(island in e.participants for e in self.events("committed")[after:]),
            f"{name} takes part again",
            seconds,
        )

    def status(self) -> RunStatus | None:
        try:
            return operate.status(self.run_dir)
        except UserError:
            return None
