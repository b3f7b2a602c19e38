"""Real processes for tests: a host and islands of a run, started as a user would, on loopback."""

import os
import time
from pathlib import Path

from atoll.agent import membership
from atoll.errors import UserError
from atoll.events import Event
from atoll.events.log import EventReader
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.run.host import wait_for_ticket
from atoll.run.processes import Child
from atoll.status import RunStatus
from atoll.swarm.identity import Ticket


class World:
    """One run in a directory; whatever is left of it at the end is stopped."""

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
            child.stop(2.0)  # own loops do not end by themselves

    def host(self, port: int = 0) -> None:
        since = time.time()
        arguments = [
            "atoll",
            "host",
            self.recipe,
            "--dir",
            str(self.run_dir.path),
            "--listen",
            f"127.0.0.1:{port}",
        ]
        self.children["host"] = Child(arguments, log=self.log("host"))
        self.ticket = wait_for_ticket(self.run_dir.coordinator / "ticket", self.children["host"], since)

    def join(self, name: str, *extra: str) -> None:
        arguments = [
            "atoll",
            "join",
            self.ticket,
            "--dir",
            str(self.run_dir.path),
            "--name",
            name,
            "--contributor",
            name,
            "--listen",
            "127.0.0.1:0",
            *extra,
        ]
        self.start(name, arguments)

    def start(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        self.children[name] = Child(
            arguments, log=self.log(name), environment={"OMP_NUM_THREADS": "1", **(environment or {})}
        )

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
        """Whoever had a part in any commit."""
        return {island for commit in self.events("committed") for island in commit.participants}

    @property
    def port(self) -> int:
        return int(Ticket.parse(self.ticket).address.rpartition(":")[2])

    def island_id(self, name: str) -> str:
        member = membership.load(self.run_dir.islands / name)
        assert member is not None, f"{name} has not enrolled"
        return member.island

    def until(self, condition, what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                tail = "\n".join(e.text for e in self.events()[-15:])
                logs = "\n".join(
                    f"{p.name}: {p.read_text()[-600:]}" for p in (self.run_dir.path / "logs").glob("*.log")
                )
                raise AssertionError(f"not within {seconds} s: {what}\n{tail}\n{logs}")
            time.sleep(0.1)

    def until_step(self, step: int, seconds: float = 60.0) -> None:
        self.until(lambda: len(self.events("committed")) >= step, f"step {step}", seconds)

    def until_taking_part(self, name: str, after: int, seconds: float = 60.0) -> None:
        """A commit after the first `after` ones has the island among its participants."""
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
