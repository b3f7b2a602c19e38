"""A run on the machines of a small internet, by the commands of docs/network.md.

Hosts and relays are what ships. An island's agent is, too; its trainer is the benches' one, which needs no
torch and sleeps instead of training.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
from agents.supervised import BENCH
from agents.trainer import Options
from networks.internet import Internet

from atoll import cli, recipe
from atoll.agent import membership
from atoll.cli.join import join_settings
from atoll.doctor.finding import Finding
from atoll.events import Committed, Event
from atoll.events.log import EventReader
from atoll.run.directory import RunDir
from atoll.run.genesis import write_state_0
from atoll.run.host import kept_ticket, wait_for_ticket
from atoll.run.processes import Child
from atoll.status import RunStatus

PAGE = Path(__file__).parents[2] / "docs" / "network.md"
RECIPE = """
name = "mine"
model.own = true
stage = [{ until = 100000 }]
inner = { context_length = 1024, tokens_per_step = 1024 }
outer = { inner_steps = 2, checkpoint_every = 10 }
"""
ROWS, COLUMNS = 4, 4096
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")]),
}


def commands_of(picture: int) -> list[tuple[str, str, str]]:
    """(machine, its address, command) of each row of a picture's table, as it is on the page."""
    section = re.split(r"^##+ ", PAGE.read_text("utf-8").split(f"\n### {picture}. ")[1], flags=re.M)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [(machine.strip(), address.strip(), words.strip(" `")) for machine, address, words in rows[1:]]


class NetworkSwarm:
    """The processes of one run, each on its machine. As a context it ends them all."""

    def __init__(self, internet: Internet, directory: Path) -> None:
        self._internet = internet
        self._directory = directory
        self._recipe = directory / "mine.toml"
        self._recipe.write_text(RECIPE)
        self.children: list[Child] = []
        self._islands: list[Path] = []
        self._host = ""
        self._ticket = ""

    def __enter__(self) -> "NetworkSwarm":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.socket.close()
        for child in self.children:
            child.stop(5.0)

    def run(self, machine: str, words: str) -> None:
        """A command of the page, on a machine."""
        arguments = shlex.split(words.replace("TICKET", self._ticket), posix=True)[1:]
        if arguments[0] == "host":
            self._start_host(machine, arguments[2:])
        elif "--relay" in arguments:
            place = ["--dir", str(self.run_dir(machine).path)]
            self._start(machine, ["atoll", *arguments, *place])
        else:
            self._start_island(machine, arguments)

    def run_dir(self, machine: str) -> RunDir:
        return RunDir(self._directory / machine / "run")

    def prepare(self, machine: str) -> None:
        """What `atoll prepare` does for a run without data."""
        self.run_dir(machine).claim(recipe.load(self._recipe))
        weights = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
        write_state_0(self.run_dir(machine), {"weights": weights})

    def copy(self, source: str, target: str, part: str = "") -> None:
        """Copy the run's directory, or a part of it, from one machine to another."""
        shutil.copytree(self.run_dir(source).path / part, self.run_dir(target).path / part)

    def _start_host(self, machine: str, options: list[str]) -> None:
        run_dir = self.run_dir(machine)
        if not run_dir.genesis.exists():
            self.prepare(machine)
        before = kept_ticket(run_dir.coordinator / "ticket")
        arguments = ["atoll", "host", str(self._recipe), "--dir", str(run_dir.path), *options]
        child = self._start(machine, arguments)
        self._host = machine
        self._ticket = wait_for_ticket(run_dir.coordinator / "ticket", child, before)

    def _start_island(self, machine: str, arguments: list[str]) -> None:
        """As `atoll join` does it; state 0 comes from whoever gives it, unless the run was prepared here."""
        run_dir = self.run_dir(machine)
        directory = run_dir.islands / f"island-{len(self._islands)}"
        settings = join_settings(cli.parser().parse_args(arguments)).agent(
            run_dir, directory, recipe.Island()
        )
        options = Options(
            directory=str(directory),
            ticket=self._ticket,
            genesis=str(run_dir.genesis) if run_dir.genesis.exists() else "",
            listen=settings.listen,
            advertise=settings.advertise,
            dial_only=settings.dial_only,
            elements=ROWS * COLUMNS,
            step_seconds=0.1,
            seed=len(self._islands),
        )
        self._islands.append(directory)
        self._start(machine, ["agents.trainer", msgspec.json.encode(options).decode()])

    def _start(self, machine: str, arguments: list[str]) -> Child:
        log = self._directory / "logs" / f"{len(self.children)}-{machine}.log"
        log.parent.mkdir(exist_ok=True)
        with self._internet.at(machine):
            child = Child(arguments, log=log, environment=ENVIRONMENT)
        self.children.append(child)
        return child

    # -------------------------------------------------------------------------------------- what came of it
    def events(self, kind: str = "") -> list[Event]:
        reader = EventReader(self.run_dir(self._host).path / "events.jsonl")
        return [event for event in reader.read() if kind in ("", event.kind)]

    def island_ids(self) -> set[str]:
        members = [membership.load(directory) for directory in self._islands]
        return {member.island for member in members if member is not None}

    def until_all_take_part(self, num_commits: int, seconds: float = 60.0) -> None:
        """Wait for commits in which every island takes part; fail, with all that was said, without them."""
        deadline = time.monotonic() + seconds
        while True:
            islands = self.island_ids()
            whole = [e for e in self.events() if isinstance(e, Committed) and set(e.participants) >= islands]
            if len(islands) == len(self._islands) and len(whole) >= num_commits:
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {seconds:.0f} s: {num_commits} commits of all\n{self.said()}"
                )
            time.sleep(0.1)

    def said(self) -> str:
        """The last events, and the ends of all logs."""
        told = "\n".join(event.text for event in self.events()[-20:])
        logs = [*(self._directory / "logs").glob("*.log"), *self._directory.rglob("agent.log")]
        logs += self._directory.rglob("relay.log")
        ends = "\n".join(f"{path.relative_to(self._directory)}: {path.read_text()[-800:]}" for path in logs)
        return f"{told}\n{ends}"

    def status(self) -> RunStatus:
        """What `atoll status` tells on the machine of the host."""
        return msgspec.json.decode(self.ask("status", "--json"), type=RunStatus)

    def until_event(self, kind: str, seconds: float = 60.0) -> Event:
        """The first event of a kind."""
        deadline = time.monotonic() + seconds
        while not (found := self.events(kind)):
            assert time.monotonic() < deadline, f"no event {kind}\n{self.said()}"
            time.sleep(0.1)
        return found[0]

    def ask(self, *words: str) -> str:
        """What `atoll` prints about the run on the machine of the host."""
        return self._said_at(self._host, *words, str(self.run_dir(self._host).path))

    def examined(self, machine: str) -> dict[str, Finding]:
        """What `atoll doctor` finds on a machine about the run of its ticket, as a relay would ask it."""
        words = "doctor", "--relay", "--json", "--ticket", self._ticket, "--dir"
        told = self._said_at(machine, *words, str(self._directory / machine / "not-yet"))
        return {finding.about: finding for finding in msgspec.json.decode(told, type=list[Finding])}

    def _said_at(self, machine: str, *words: str) -> str:
        with self._internet.at(machine):
            done = subprocess.run(
                [sys.executable, "-m", "atoll", *words],
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, **ENVIRONMENT},
            )
        assert done.returncode == 0, done.stderr
        return done.stdout
