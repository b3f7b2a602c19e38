"""The run's database, and the coordinators that lead or stand by over it, each a process of its own.

The database is a real SQLite file. That a power cut takes nothing from it that was committed is SQLite's to
keep: what is looked at is that it was told to (`PRAGMA synchronous`).
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atoll.coordinator.database import sqlite_path, sqlite_url
from atoll.coordinator.effects import Record
from atoll.coordinator.server import CoordinatorServer
from atoll.coordinator.store import DatabaseFailed, Deposed, Store
from atoll.errors import UserError
from atoll.events import Event
from atoll.events.log import EventLog
from atoll.simulate.network import SimulatedTransport
from atoll.simulate.process import Clock, Killed, Process
from atoll.swarm.address import Address, HostPorts
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.records import CommitRecord, encode
from atoll.swarm.services import CONTROL

if TYPE_CHECKING:
    from atoll.simulate.world import World

NUM_SEATS = 2  # machines that may host the run; members know both
FIRST_PORT = 7700
NUM_BACKUPS = 3  # the newest of them that are kept
SYNCHRONOUS_FULL = 2


class WatchedStore(Store):
    """Production's store on behalf of one process: after its death nothing is written any more."""

    def __init__(self, world: "World", host: "Host") -> None:
        super().__init__(sqlite_url(world.database_dir), clock=lambda: world.loop.now)
        self._world, self._host = world, host
        if self.sync_level() != SYNCHRONOUS_FULL:
            world.invariants.violated("the database does not sync what it commits")

    @contextmanager
    def _transaction(self) -> Generator[Any]:
        if not self._host.process.alive:
            raise Killed
        if self._world.hosts.database_full:
            raise DatabaseFailed("the database is full")
        with super()._transaction() as db:
            yield db

    def append(self, records: list[Record]) -> None:
        super().append(records)
        self._world.persisted(self._host, records)


class Host:
    """One life of a coordinator."""

    def __init__(
        self, world: "World", seat: int, *, standby: bool, restored: bool, rewind: int | None
    ) -> None:
        """`standby`, `restored`, `rewind`: the options with which it is hosted."""
        self.world, self.seat = world, seat
        self._standby, self._restored, self._rewind = standby, restored, rewind
        self.process = world.new_process(COORDINATOR, None, Clock())
        self.server: CoordinatorServer | None = None
        self.store: WatchedStore | None = None
        self.log: EventLog | None = None
        self.was_thin = False  # it has said that the next commit has few holders
        self.process.start(self._life())

    async def _life(self) -> None:
        """As `run/host.py`."""
        world = self.world
        log = self.log = EventLog(world.directory / f"events-{self.seat}.jsonl", self._hear)
        transport = SimulatedTransport(world.network, self.process)
        try:
            store = self.store = WatchedStore(world, self)
            store.claim(encode(world.run))
            server = CoordinatorServer(world.rules, world.run, world.keys, store, log, transport)
            host = world.network.host_of(COORDINATOR)
            server.reach.hosts = (HostPorts(host, FIRST_PORT + self.seat, 1, 2),)
            await transport.serve(Address(host, FIRST_PORT + self.seat), {CONTROL: server.control})
            restored = await server.stand_by() if self._standby else False
            server.begin(self._restored or restored, self._rewind)
            self.server = server
            world.story(f"term {self.term}", "begins")
            await server.keep_time()
        except (Deposed, UserError) as error:
            world.story(f"seat {self.seat}", f"ends: {error}")
        self.process.exit()

    @property
    def term(self) -> int:
        """The number of its reign; 0 before that."""
        return self.server.protocol.term.counter if self.server is not None else 0

    def close(self) -> None:
        """What the operating system closes after its death."""
        if self.store is not None:
            self.store.close()
        if self.log is not None:
            self.log.close()

    def _hear(self, event: Event) -> None:
        if event.kind == "thin":
            self.was_thin = True
        self.world.reported(f"term {self.term}", event)


class Hosts:
    """All coordinators that live, and the database."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.living: list[Host] = []
        self.all: list[Host] = []  # that ever lived
        self.database_full = False
        self.known_backup = False  # it was restored, and its operator will say so to the next coordinator
        self.is_restored = False  # at any time
        self.keeps_backups = False
        self._backups: list[bytes] = []

    @property
    def leader(self) -> Host | None:
        """The living coordinator that holds the database's term, as far as is known."""
        leaders = [host for host in self.living if host.term]
        return max(leaders, key=lambda host: host.term, default=None)

    def start(
        self, seat: int, *, standby: bool = False, restored: bool = False, rewind: int | None = None
    ) -> None:
        """A coordinator begins at a seat, unless one works there."""
        if any(host.seat == seat for host in self.living):
            return
        self.world.network.dark.discard(COORDINATOR)
        if not standby:
            restored, self.known_backup = self.known_backup, False
        host = Host(self.world, seat, standby=standby, restored=restored, rewind=rewind)
        self.living.append(host)
        self.all.append(host)

    def start_if_none(self, rewind: int | None = None) -> None:
        """The run is hosted again, if nobody hosts it."""
        if not self.living:
            self.start(0, rewind=rewind)

    def free_database(self) -> None:
        """There is room again; whoever watches the host starts it again."""
        self.database_full = False
        self.start_if_none()

    def kill_all(self, dark: bool) -> None:
        for host in list(self.living):
            self.world.kill(host.process, dark)

    def process_died(self, process: Process) -> None:
        for host in [host for host in self.living if host.process is process]:
            self.living.remove(host)
            self.world.network.after(0.0, host.close)

    def read_commits(self) -> list[CommitRecord]:
        """The records in the database."""
        store = Store(sqlite_url(self.world.database_dir))
        try:
            return store.commits()
        finally:
            store.close()

    def committed(self, records: list[Any]) -> None:
        """Keep what a backup would, if one will be needed."""
        if self.keeps_backups and any(isinstance(record, CommitRecord) for record in records):
            with sqlite3.connect(sqlite_path(self.world.database_dir)) as db:
                self._backups = [*self._backups, db.serialize()][-NUM_BACKUPS - 1 :]
            db.close()

    def restore(self, commits_back: int) -> None:
        """Put a backup in the database's place; no coordinator lives."""
        if len(self._backups) <= commits_back:
            return
        path = sqlite_path(self.world.database_dir)
        for part in path.parent.glob(path.name + "*"):
            part.unlink()
        path.write_bytes(self._backups[-1 - commits_back])
        self.is_restored = True
        self._backups = self._backups[: len(self._backups) - commits_back]
        self.world.invariants.forget_unseen()
