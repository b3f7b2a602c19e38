"""`atoll host`: the coordinator of a run, and a relay beside it. Needs neither torch nor a GPU."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from atoll.agent import diloco
from atoll.agent.codecs import codec_named
from atoll.agent.pieces import slots_bytes
from atoll.coordinator.consumed import count_nothing
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.requests import Requests
from atoll.coordinator.rules import Rules
from atoll.coordinator.server import CoordinatorServer
from atoll.coordinator.status import StatusBoard
from atoll.coordinator.store import DatabaseFailed, Deposed, Store
from atoll.data.manifest import Manifest
from atoll.data.mixture import Mixture
from atoll.errors import UserError
from atoll.events import Event
from atoll.events.log import EventLog
from atoll.files import DirectoryLock, write_atomic, write_private
from atoll.recipe import Recipe
from atoll.run.beside import keep_dashboard, keep_relay, relay_dir
from atoll.run.captured import check_captured
from atoll.run.directory import RunDir
from atoll.run.ports import advice, from_here, ips_of, own_host, scope_of
from atoll.run.processes import Child, last_words
from atoll.swarm.address import Address, HostPorts, is_loopback
from atoll.swarm.grpc_transport import GrpcTransport, why_not_served
from atoll.swarm.identity import COORDINATOR, RunKeys, common_name
from atoll.swarm.records import RunInfo, encode
from atoll.swarm.services import CONTROL, ENROLL, OPERATE

TICKET_USES, TICKET_HOURS = 100, 7 * 24.0

# Until a host that lives has a ticket: its imports alone take a minute where many processes want each core.
READY_SECONDS = 300.0


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a coordinator serves."""

    listen: HostPorts = HostPorts("0.0.0.0", 7700, 7701, 7702)  # a port of 0: any that is free
    # Where others find it; a port of 0: the one that it listens on. None: at this machine's own address.
    advertise: HostPorts | None = None
    relay: bool = True  # keep a relay beside the coordinator
    dashboard: Address | None = None  # where to show the run to people; None: nowhere
    database: str = ""  # an SQLAlchemy URL; "" is SQLite in the run's directory
    standby: bool = False  # wait until the leader is silent, then lead
    restored: bool = False  # the database may be an old backup: ask the islands before deciding anything
    rewind: int | None = None  # abandon all commits after this state
    num_awaited: int = 1  # islands that must be ready at once before the first step begins


async def host(
    recipe: Recipe,
    run_dir: RunDir,
    settings: HostSettings,
    ready: Callable[[str, list[str]], None],
    hear: Callable[[Event], None] = lambda event: None,
) -> None:
    """Coordinate a run until cancelled.

    Once this coordinator leads, `ready` is called with a ticket, and with sentences on how others reach it.
    `hear` is given each event. Raises UserError if directory, database or port cannot be used, or another
    coordinator takes over.
    """
    with run_dir.claimed(recipe):
        run_dir.state_0()  # a run that is not prepared is refused before anything else is made
        check_captured(recipe, run_dir)
    with DirectoryLock(run_dir.coordinator) as lock:
        if not lock.acquire():
            raise UserError(
                f"{run_dir.coordinator}: another coordinator works here; stop it or choose another --dir"
            )
        keys = RunKeys(run_dir.coordinator, recipe.name)
        run, rules = _describe(recipe, run_dir, keys)
        rules = msgspec.structs.replace(rules, num_awaited=settings.num_awaited)
        has_own_module = bool(recipe.model.own)  # its samples are of no source
        count = count_nothing if has_own_module else Mixture.of(recipe, Manifest.load(run_dir.data)).count
        with (
            contextlib.closing(Store(settings.database or sqlite_url(run_dir.coordinator))) as store,
            contextlib.closing(EventLog(run_dir.events, hear)) as events,
        ):
            _check_database(store.claim(encode(run)), run_dir.coordinator / "database.id")
            transport = GrpcTransport(keys.new_credentials(COORDINATOR))
            strangers = GrpcTransport(keys.authority_credentials())
            server = CoordinatorServer(rules, run, keys, store, events, transport, count)
            requests = Requests(server, StatusBoard(server, count))
            try:
                if settings.relay:
                    _see_to_port(settings.listen.of_relay, relay_dir(run_dir))
                listening = await _open_ports(settings.listen, server, requests, strangers)
                await _lead(run_dir, settings, listening, server, requests, ready)
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
    listening: HostPorts,
    server: CoordinatorServer,
    requests: Requests,
    ready: Callable[[str, list[str]], None],
) -> None:
    """Lead the run, a standby once the leader is silent, and keep a relay; until cancelled or deposed."""
    own = msgspec.structs.replace(listening, host=own_host(listening.host))
    advertised = _advertised(settings, own)
    ips = await ips_of(advertised.host)
    is_elsewhere = advertised != own and not is_loopback(own.host)
    server.reach.hosts = (advertised, own) if is_elsewhere else (advertised,)
    server.reach.scope = scope_of(ips)
    here = from_here(listening)
    restored = await server.stand_by() if settings.standby else False
    server.begin(settings.restored or restored, settings.rewind)
    ticket = requests.ticket(TICKET_USES, TICKET_HOURS)
    write_atomic(run_dir.local_address, str(here).encode())
    # Last, since whoever waits for the host waits for this.
    write_private(run_dir.coordinator / "ticket", ticket.encode())
    beside: list[asyncio.Task[None]] = []
    if settings.relay:
        local_ticket = requests.ticket(1, 1.0, (msgspec.structs.replace(listening, host=here.host),))
        given = tuple(host.of_relay for host in server.reach.hosts)
        beside.append(asyncio.create_task(keep_relay(run_dir, local_ticket, listening.of_relay, given)))
    if settings.dashboard is not None:
        beside.append(asyncio.create_task(keep_dashboard(run_dir, settings.dashboard)))
    try:
        ready(ticket, advice(own, advertised, ips, settings.relay))
        await server.keep_time()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _open_ports(
    listen: HostPorts, server: CoordinatorServer, requests: Requests, strangers: GrpcTransport
) -> HostPorts:
    """Serve members and strangers, and return the ports that were taken. Raises UserError."""
    handlers = {CONTROL: server.control, OPERATE: requests.operate}
    members = await server.transport.serve(listen.for_members, handlers)
    enrolment = await strangers.serve_strangers(listen.for_strangers, {ENROLL: requests.enroll})
    return HostPorts(listen.host, members, enrolment, listen.relay)


def _see_to_port(listen: Address, relay_dir: Path) -> None:
    """Raise UserError if the relay cannot serve there, before anybody is told of it.

    A relay ends a moment after its host. If the last one still works in its directory, the port may be its.
    """
    with DirectoryLock(relay_dir) as lock:
        if lock.acquire() and (reason := why_not_served(listen)):
            raise UserError(f"{listen}: {reason} (--relay-port, or --no-relay)")


def _advertised(settings: HostSettings, own: HostPorts) -> HostPorts:
    """Where others find this host."""
    wanted = settings.advertise
    if wanted is None:
        return own
    return HostPorts(
        wanted.host,
        wanted.members or own.members,
        wanted.enrolment or own.enrolment,
        wanted.relay or own.relay,
    )


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
    manifest = None if recipe.model.own else Manifest.load(run_dir.data)
    run = RunInfo(
        run_id=common_name(keys.authority),
        name=recipe.name,
        recipe=recipe.shared(),
        genesis_root=state_0.root,
        layout=state_0.layout,
        data_digest=manifest.digest() if manifest else "",
        record_key=keys.record_key,
        tokenizer=manifest.tokenizer if manifest else "",
    )
    run = msgspec.structs.replace(run, signature=keys.sign(run.unsigned()))
    layout = state_0.layout
    payload_bytes = slots_bytes(layout, codec_named(recipe.outer.codec))
    rules = Rules.of(recipe, diloco.self_test(), state_0.root, layout.num_pieces, payload_bytes)
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


def kept_ticket(path: Path) -> str:
    """The ticket at `path`, or "": to be read before a host is started, which writes another."""
    return path.read_text() if path.exists() else ""


def wait_for_ticket(path: Path, child: Child, before: str, timeout_seconds: float = READY_SECONDS) -> str:
    """The ticket that a host process writes to `path` in the place of `before`.

    Times of files would not tell: a file server has a clock of its own. Raises UserError if the process ends,
    or takes longer than so many seconds.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if (ticket := kept_ticket(path)) not in ("", before):
            return ticket
        if not child.alive:
            status = child.process.returncode
            raise UserError(f"the coordinator ended with status {status}; {last_words(child)}")
        time.sleep(0.05)
    raise UserError(f"the coordinator was not ready within {timeout_seconds:.0f} s; {child.log} says why")
