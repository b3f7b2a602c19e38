"""`atoll host`: the coordinator of a run, and a relay beside it. Needs neither torch nor a GPU."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from atoll.agent import diloco
from atoll.agent.settings import Settings, command
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.requests import Requests
from atoll.coordinator.rules import Rules
from atoll.coordinator.server import CoordinatorServer
from atoll.coordinator.status import StatusBoard, count_nothing
from atoll.coordinator.store import DatabaseFailed, Deposed, Store
from atoll.data.manifest import Manifest
from atoll.data.mixture import Mixture
from atoll.errors import UserError
from atoll.events.log import EventLog
from atoll.files import DirectoryLock, write_atomic
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.run.processes import Child
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, RunKeys, common_name
from atoll.swarm.records import RunInfo, encode
from atoll.swarm.services import CONTROL, ENROLL, OPERATE

TICKET_USES, TICKET_HOURS = 100, 7 * 24.0
RELAY_CHECK_SECONDS = 1.0  # between two looks at whether the relay lives
PORT_TRIES = 5  # if any port will do: how often a pair of free ports is looked for


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a coordinator serves."""

    host: str = "0.0.0.0"
    port: int = 7700  # for members; strangers enrol on the next one. 0: any
    advertise: str = ""  # the name or address that tickets give; "" is that of this machine's interface
    relay: bool = True  # keep a relay beside the coordinator
    database: str = ""  # an SQLAlchemy URL; "" is SQLite in the run's directory
    standby: bool = False  # wait until the leader is silent, then lead
    restored: bool = False  # the database may be an old backup: ask the islands before deciding anything
    rewind: int | None = None  # abandon all commits after this state


async def host(recipe: Recipe, run_dir: RunDir, settings: HostSettings, ready: Callable[[str], None]) -> None:
    """Coordinate a run until cancelled. `ready` is called with a ticket once this coordinator leads.

    Raises UserError if directory, database or port cannot be used, or another coordinator takes over.
    """
    run_dir.claim(recipe)
    with DirectoryLock(run_dir.coordinator) as lock:
        if not lock.acquire():
            raise UserError(
                f"{run_dir.coordinator}: another coordinator works here; stop it or choose another --dir"
            )
        keys = RunKeys(run_dir.coordinator, recipe.name)
        run, rules = _describe(recipe, run_dir, keys)
        has_own_module = bool(recipe.model.own)  # its samples are of no source
        count = count_nothing if has_own_module else Mixture.of(recipe, Manifest.load(run_dir.data)).count
        with (
            contextlib.closing(Store(settings.database or sqlite_url(run_dir.coordinator))) as store,
            contextlib.closing(EventLog(run_dir.path / "events.jsonl")) as events,
        ):
            _check_database(store.claim(encode(run)), run_dir.coordinator / "database.id")
            transport = GrpcTransport(keys.new_credentials(COORDINATOR))
            strangers = GrpcTransport(keys.authority_credentials())
            server = CoordinatorServer(rules, run, keys, store, events, transport)
            requests = Requests(server, StatusBoard(server, count))
            try:
                port = await _open_ports(settings, server, requests, strangers)
                server.address = f"{settings.advertise or _own_address(settings.host)}:{port}"
                await _lead(run_dir, settings, server, requests, ready)
            except DatabaseFailed as error:
                raise UserError(
                    f"{error}; this coordinator stops, and nothing that was committed is lost; look to the "
                    "database (a full disk?) and host the run again"
                ) from None
            except Deposed as error:
                raise UserError(
                    f"{error}; this coordinator stops; to let it wait for its turn, host it with --standby"
                ) from None
            finally:
                await transport.close()
                await strangers.close()


async def _lead(
    run_dir: RunDir,
    settings: HostSettings,
    server: CoordinatorServer,
    requests: Requests,
    ready: Callable[[str], None],
) -> None:
    """Lead the run, a standby once the leader is silent, and keep a relay; until cancelled or deposed."""
    restored = await server.stand_by() if settings.standby else False
    server.begin(settings.restored or restored, settings.rewind)
    ticket = requests.ticket(TICKET_USES, TICKET_HOURS)
    write_atomic(run_dir.coordinator / "ticket", ticket.encode())
    relay = asyncio.create_task(_keep_relay(run_dir, requests.ticket(1, 1.0))) if settings.relay else None
    try:
        ready(ticket)
        await server.keep_time()
    finally:
        if relay is not None:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)


async def _open_ports(
    settings: HostSettings, server: CoordinatorServer, requests: Requests, strangers: GrpcTransport
) -> int:
    """Serve members on a port, which is returned, and strangers on the next one.

    If any port will do and the one after it is in use, another pair is tried. Raises UserError.
    """
    for attempt in range(PORT_TRIES):
        handlers = {CONTROL: server.control, OPERATE: requests.operate}
        port = await server.transport.serve(settings.host, settings.port, handlers)
        try:
            await strangers.serve_strangers(settings.host, port + 1, {ENROLL: requests.enroll})
            return port
        except UserError:
            await server.transport.close()
            if settings.port or attempt + 1 == PORT_TRIES:
                raise
    raise AssertionError("unreachable")


def run_until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine until it ends, or until Ctrl-C or SIGTERM cancels it."""

    async def main() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


def _describe(recipe: Recipe, run_dir: RunDir, keys: RunKeys) -> tuple[RunInfo, Rules]:
    """What members are told of the run, and its rules. Raises UserError if it is not prepared, or damaged."""
    state_0 = run_dir.state_0()
    state_0.verify()
    data_digest = "" if recipe.model.own else Manifest.load(run_dir.data).digest()
    run = RunInfo(
        run_id=common_name(keys.authority),
        name=recipe.name,
        recipe=recipe.shared(),
        genesis_root=state_0.root,
        layout=state_0.layout,
        data_digest=data_digest,
        record_key=keys.record_key,
    )
    rules = Rules.of(recipe, diloco.self_test(), state_0.root, state_0.layout.num_pieces)
    return run, rules


def _check_database(database_id: str, path: Path) -> None:
    """Refuse a database other than the one that the run began with, whose id lies in the file `path`.

    With a copied or exchanged database the run would go on from another history.
    """
    if path.exists() and path.read_text() != database_id:
        raise UserError(
            f"{path}: the database is not the one that this run began with; restore that one, or name it "
            "with --database"
        )
    write_atomic(path, database_id.encode())


async def _keep_relay(run_dir: RunDir, ticket: str) -> None:
    """Run a relay beside the coordinator, and start it again whenever it has died."""
    settings = Settings(
        directory=run_dir.islands / "relay",
        coordinator="",
        contributor="relay",
        relay=True,
        checkpoint_dirs=(run_dir.genesis,),
        data_dirs=(run_dir.data,),
    )
    log = run_dir.coordinator / "relay.log"
    child = Child(command(settings, ticket), log=log, leash=False)
    try:
        while True:
            await asyncio.sleep(RELAY_CHECK_SECONDS)
            if not child.alive:
                child.stop(0.1)
                child = Child(command(settings, ticket), log=log, leash=False)
    finally:
        await asyncio.to_thread(child.stop)


def _own_address(host: str) -> str:
    """The address of this machine's interface to the network; loopback if there is none.

    A `host` that is not a wildcard is returned as it is.
    """
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: a datagram socket only chooses its interface
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def wait_for_ticket(path: Path, child: Child, since: float, timeout_seconds: float = 60.0) -> str:
    """The ticket that a host process writes to `path`; `since` is when it was started, by the wall clock.

    Raises UserError if the process ends, or takes longer than so many seconds.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_mtime >= since:
            return path.read_text()
        if not child.alive:
            raise UserError(f"the coordinator ended with status {child.process.returncode}; its log says why")
        time.sleep(0.05)
    raise UserError(f"the coordinator was not ready within {timeout_seconds:.0f} s; its log says why")
