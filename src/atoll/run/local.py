"""A swarm on this machine: a coordinator and several islands, as child processes."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from atoll.run.directory import RunDir
from atoll.run.host import kept_ticket, wait_for_ticket
from atoll.run.processes import Child, last_words


class LocalSwarm:
    """Islands that join a run of this machine over the loopback interface.

    Islands are numbered from 1, and called `island-1` and so on; the number is not their id.
    """

    def __init__(self, run_dir: RunDir, own: Sequence[str]) -> None:
        """`own`: what every island sets of its own table, as overrides."""
        self.run_dir = run_dir
        self._own = list(own)
        self._host: Child | None = None
        self._ticket = ""
        self.islands: dict[int, Child] = {}
        self.killed: set[int] = set()  # and not started again

    @property
    def host_log(self) -> Path:
        return self.run_dir.coordinator / "host.log"

    def directory(self, number: int) -> Path:
        """Where an island lies."""
        return self.run_dir.islands / f"island-{number}"

    def log(self, number: int) -> Path:
        """What an island's trainer printed."""
        return self.directory(number) / "trainer.log"

    def host(self, *options: str) -> None:
        """Start the coordinator, and wait until it has a ticket. Raises UserError where it ends instead."""
        self.host_log.parent.mkdir(parents=True, exist_ok=True)
        kept = self.run_dir.coordinator / "ticket"
        before = kept_ticket(kept)
        arguments = ["atoll", "host", str(self.run_dir.path), "--listen", "127.0.0.1:0", *options]
        self._host = Child(arguments, log=self.host_log)
        self._ticket = wait_for_ticket(kept, self._host, before)

    def join(self, number: int, *overrides: str) -> None:
        """Start an island, or start it again, with the same command."""
        name = f"island-{number}"
        self.log(number).parent.mkdir(parents=True, exist_ok=True)
        where = ["--dir", str(self.run_dir.path), "--name", name, "--contributor", name]
        arguments = ["atoll", "join", self._ticket, *self._own, *overrides, *where, "--listen", "127.0.0.1:0"]
        arguments.append("--no-check")
        # Several trainers share the cores: a second thread each would make all of them ten times slower.
        environment = {"OMP_NUM_THREADS": "1"}
        self.islands[number] = Child(arguments, log=self.log(number), environment=environment)
        self.killed.discard(number)

    def kill(self, number: int) -> None:
        """SIGKILL to an island's trainer and agent at once, as a power cut would."""
        os.kill(int((self.directory(number) / "agent.pid").read_text()), signal.SIGKILL)
        self.islands[number].kill()
        self.killed.add(number)

    @property
    def trains(self) -> bool:
        """Whether an island has yet to finish."""
        return any(child.alive for child in self.islands.values())

    def check(self) -> None:
        """Raises RuntimeError where a process has died that should not have."""
        if self._host is not None and not self._host.alive:
            raise RuntimeError(f"the coordinator died; {last_words(self._host)}")
        for number, child in self.islands.items():
            if not child.alive and child.process.returncode != 0 and number not in self.killed:
                raise RuntimeError(f"island-{number} died; {last_words(child)}")

    def stop(self) -> None:
        """End everything that was started, however far it came."""
        for child in self.islands.values():
            child.socket.close()  # all at once; then wait
        for child in self.islands.values():
            child.stop()
        if self._host is not None:
            self._host.stop()
