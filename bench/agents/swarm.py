"""A run in a directory, its coordinator and islands as processes that a supervisor starts again, and what
they left behind.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agents.spaces import Sites
from agents.supervised import Supervised
from agents.trainer import TOKENS_PER_SAMPLE, Options
from atoll.agent import membership
from atoll.agent.log import UpdateLog
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.store import Store
from atoll.errors import UserError
from atoll.events import AttemptOpened, Committed, Event
from atoll.events.log import EventReader
from atoll.recipe import load
from atoll.run.directory import RunDir
from atoll.run.genesis import write_state_0
from atoll.run.host import kept_ticket, wait_for_ticket
from atoll.swarm.address import Address
from atoll.swarm.records import CommitRecord

RECIPE = """
name = "bench"
model.own = true
stage = [{{ until = {until} }}]
inner = {{ context_length = {tokens}, tokens_per_step = {tokens} }}
outer = {{ inner_steps = {inner_steps}, checkpoint_every = 10 }}
"""
POLL_SECONDS = 0.05


class Swarm:
    """Use as a context: at its end every process is stopped."""

    def __init__(
        self,
        directory: Path,
        elements: int,
        inner_steps: int,
        step_seconds: float,
        *,
        lan: Sites | None = None,
        restart_seconds: float = 3.0,
    ) -> None:
        """`elements` fp32 parameters; `inner_steps` inner steps of `step_seconds` make an outer step."""
        directory.mkdir(parents=True, exist_ok=True)
        self.recipe = directory / "bench.toml"
        self.recipe.write_text(RECIPE.format(until=10**7, tokens=TOKENS_PER_SAMPLE, inner_steps=inner_steps))
        self.run_dir = RunDir(directory / "run")
        self.run_dir.claim(load(self.recipe))
        columns = 4096
        values = np.random.default_rng(0).standard_normal((elements // columns, columns), np.float32)
        write_state_0(self.run_dir, {"weights": values})
        self.elements, self.step_seconds, self.lan = values.size, step_seconds, lan
        self.restart_seconds = restart_seconds
        self.hosts: dict[str, Supervised] = {}
        self.islands: dict[str, Supervised] = {}
        self.ticket = ""
        self._events: dict[Path, tuple[list[Event], EventReader]] = {}

    def __enter__(self) -> "Swarm":
        return self

    def __exit__(self, *_: object) -> None:
        for thing in [*self.islands.values(), *self.hosts.values()]:
            self.thaw(thing.name)
            thing.child.socket.close()
        for thing in [*self.islands.values(), *self.hosts.values()]:
            thing.child.stop()

    # ---------------------------------------------------------------------------------------------- processes
    def address(self, name: str) -> str:
        return self.lan.addresses[name] if self.lan else "127.0.0.1"

    def host(
        self,
        name: str = "host",
        port: int = 7700,
        run_dir: RunDir | None = None,
        extra: tuple[str, ...] = (),
        profile: Path | None = None,
    ) -> Supervised:
        """A coordinator; the first one's ticket is the swarm's. When stopped it leaves a cProfile at
        `profile`, if given.
        """
        run_dir = run_dir or self.run_dir
        before = kept_ticket(run_dir.coordinator / "ticket")
        measured = ["cProfile", "-o", str(profile), "-m"] if profile else []
        place = ["--dir", str(run_dir.path), "--listen", f"{self.address(name)}:{port}"]
        arguments = [*measured, "atoll", "host", str(self.recipe), *place, *extra]
        self.hosts[name] = Supervised(
            name, arguments, run_dir.path / f"{name}.log", self.lan, self.restart_seconds
        )
        if not self.ticket:
            self.ticket = wait_for_ticket(run_dir.coordinator / "ticket", self.hosts[name].child, before)
        return self.hosts[name]

    def island(self, name: str, genesis: bool = True, dial_only: bool = False) -> Supervised:
        directory = self.run_dir.islands / name
        options = Options(
            directory=str(directory),
            ticket=self.ticket,
            genesis=str(self.run_dir.genesis) if genesis else "",
            listen=Address(self.address(name), 0),
            dial_only=dial_only,
            elements=self.elements,
            step_seconds=self.step_seconds,
            seed=len(self.islands),
        )
        arguments = ["agents.trainer", msgspec.json.encode(options).decode()]
        self.islands[name] = Supervised(
            name, arguments, directory / "trainer.log", self.lan, self.restart_seconds
        )
        return self.islands[name]

    def relay(self, name: str) -> Supervised:
        """A relay on a site of its own."""
        directory = self.run_dir.islands / name
        place = ["--name", name, "--dir", str(self.run_dir.path), "--listen", f"{self.address(name)}:7800"]
        arguments = ["atoll", "join", self.ticket, "--relay", *place]
        self.islands[name] = Supervised(
            name, arguments, directory / "relay.log", self.lan, self.restart_seconds
        )
        return self.islands[name]

    def tend(self) -> None:
        for thing in [*self.hosts.values(), *self.islands.values()]:
            thing.tend()

    def agent_pid(self, name: str) -> int | None:
        """The agent of an island, None where none runs."""
        try:
            pid = int((self.run_dir.islands / name / "agent.pid").read_text())
            return pid if b"atoll.agent" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
        except (OSError, ValueError):
            return None

    def signal(self, name: str, number: int) -> None:
        """To all processes of an island, trainer first, or of a host."""
        thing = self.islands.get(name) or self.hosts[name]
        if thing.child.alive:
            os.kill(thing.pid, number)
        if name in self.islands and (pid := self.agent_pid(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        self.signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.signal(name, signal.SIGCONT)

    def kill_agent(self, name: str) -> bool:
        """Only the agent, if there is one: its trainer starts another."""
        if pid := self.agent_pid(name):
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    # ------------------------------------------------------------------------------------------ what happened
    def events(self, run_dir: RunDir | None = None) -> list[Event]:
        """All events so far of a coordinator's directory; cheap to ask again."""
        path = (run_dir or self.run_dir).path / "events.jsonl"
        known, reader = self._events.setdefault(path, ([], EventReader(path)))
        known += reader.read()
        return known

    def committed(self) -> int:
        return sum(isinstance(e, Committed) for e in self.events())

    def reductions(self) -> list[tuple[float, float]]:
        """For each committed step, from the opening of its first attempt until its commit (Unix times)."""
        opened: dict[int, float] = {}
        found: list[tuple[float, float]] = []
        for event in self.events():
            if isinstance(event, AttemptOpened):
                opened.setdefault(event.step, event.time)
            elif isinstance(event, Committed):
                found.append((opened[event.step], event.time))
        return found

    def reducing_seconds(self, began: float, ended: float) -> float:
        """For how long between two moments an attempt was open."""
        return sum(max(0.0, min(ended, until) - max(began, since)) for since, until in self.reductions())

    def island_id(self, name: str) -> str:
        member = membership.load(self.run_dir.islands / name)
        return member.island if member else ""

    def until(self, condition: Callable[[], bool], what: str, seconds: float) -> float:
        """Tend the swarm until a condition holds; how long that took. Raises UserError after `seconds`."""
        began = time.monotonic()
        while not condition():
            self.tend()
            if time.monotonic() > began + seconds:
                tail = "\n".join(e.text for e in self.events()[-15:])
                raise UserError(f"not within {seconds:.0f} s: {what}; the last events:\n{tail}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def wait(self, seconds: float) -> None:
        """Tend the swarm for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tend()
            time.sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))

    def journal(self, name: str) -> list[dict[str, Any]]:
        """What a trainer noted, oldest first."""
        path = self.run_dir.islands / name / "journal.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        notes: list[dict[str, Any]] = []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                notes.append(msgspec.json.decode(line))
        return notes

    def records(self, database: str = "") -> list[CommitRecord]:
        """The committed chain, as the database has it."""
        with contextlib.closing(Store(database or sqlite_url(self.run_dir.coordinator))) as store:
            return store.commits()

    def kept_by(self, name: str) -> list[CommitRecord]:
        """The commit records that an island (or the relay) has stored. Only while its agent does not run."""
        directory = self.run_dir.islands / name
        member = membership.load(directory)
        if member is None:
            return []
        return UpdateLog(directory / "log", member.run.layout, member.run.record_key).records


def lost_commits(database: list[CommitRecord], kept: list[list[CommitRecord]]) -> int:
    """Steps whose record some island holds and the database does not, or whose chain is broken in the
    database.
    """
    lost = {
        record.step
        for records in kept
        for record in records
        if record.step >= len(database) or database[record.step] != record
    }
    previous = b""
    for step, record in enumerate(database):
        if record.step != step or record.previous != previous:
            lost.add(step)
        previous = record.digest()
    return len(lost)
