"""The gRPC transport on loopback: who is let in, what a cut does, and whether it counts the bytes it sent."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from unit.doors import ECHO
from worlds.swarm import LAYOUT

from atoll.agent import membership, renewal
from atoll.agent.fetch import Donors, NobodyHas
from atoll.errors import UserError
from atoll.swarm import messages as m
from atoll.swarm.address import Address, HostPorts
from atoll.swarm.grpc_transport import GrpcTransport, enrolment_line
from atoll.swarm.identity import (
    COORDINATOR,
    Credentials,
    RunKeys,
    Ticket,
    common_name,
    fingerprint,
    island_key,
)
from atoll.swarm.records import RunInfo
from atoll.swarm.services import CONTROL, ENROLL, FETCH, OPERATE, REDUCE
from atoll.swarm.transport import MAX_FRAME_BYTES, Stream, TransportError, call

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> RunKeys:
    return RunKeys(tmp_path_factory.mktemp("keys"), "test")


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory) -> RunKeys:
    return RunKeys(tmp_path_factory.mktemp("other"), "test")


async def echo(stream: Stream) -> None:
    while True:
        message, bulk = await stream.receive(5)
        await stream.send(message, bulk)


class Wire:
    """Transports that are closed at the end, whatever happens."""

    def __init__(self) -> None:
        self._closing: list[Callable[[], Awaitable[Any]]] = []

    def transport(self, keys: RunKeys, name: str, authority: bytes | None = None) -> GrpcTransport:
        own = keys.new_credentials(name)
        transport = GrpcTransport(Credentials(own.key, own.certificate, authority or own.authority))
        self._closing.append(transport.close)
        return transport

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            try:
                await asyncio.wait_for(work(), 20)
            finally:
                for close in reversed(self._closing):
                    await close()

        asyncio.run(main())


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_a_message_and_its_bulk_travel_both_ways(wire, keys) -> None:
    async def main() -> None:
        server, client = wire.transport(keys, "server"), wire.transport(keys, "client")
        peers: list[str] = []

        async def service(stream: Stream) -> None:
            peers.append(stream.peer)
            await echo(stream)

        port = await server.serve(Address(HOST, 0), {ECHO: service})
        stream = await client.connect((Address(HOST, port),), "server", ECHO)
        for bulk in (b"", b"bulk", bytes(1 << 20)):
            await stream.send(m.Piece(7), bulk)
            message, back = await stream.receive(5)
            assert message == m.Piece(7)
            assert bytes(back) == bulk
        assert peers == ["client"]
        assert stream.peer == "server"
        await stream.close()
        await stream.close()

    wire.run(main)


def test_a_port_in_use_is_a_users_mistake(wire, keys) -> None:
    async def main() -> None:
        with socket.create_server((HOST, 0)) as taken, pytest.raises(UserError, match="the port is in use"):
            await wire.transport(keys, "server").serve(Address(HOST, taken.getsockname()[1]), {})

    wire.run(main)


def test_two_servers_cannot_share_a_port(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "one").serve(Address(HOST, 0), {})
        with pytest.raises(UserError, match="the port is in use"):
            await wire.transport(keys, "two").serve(Address(HOST, port), {})

    wire.run(main)


def test_a_host_of_another_machine_is_not_reported_as_a_port_in_use(wire, keys) -> None:
    async def main() -> None:
        with pytest.raises(UserError) as caught:
            await wire.transport(keys, "server").serve(Address("192.0.2.1", 0), {})
        assert "in use" not in str(caught.value)

    wire.run(main)


# ------------------------------------------------------------------------------------------ several addresses
@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_either_wildcard_serves_ipv4_and_ipv6_and_the_caller_is_seen_without_brackets(
    wire, keys, listen
) -> None:
    async def main() -> None:
        seen: list[str] = []

        async def service(stream: Stream) -> None:
            seen.append(stream.peer_host)
            await echo(stream)

        port = await wire.transport(keys, "server").serve(Address(listen, 0), {ECHO: service})
        for host in ("127.0.0.1", "::1", "localhost"):
            client = wire.transport(keys, host)
            assert await call(client, (Address(host, port),), "server", ECHO, m.Ping()) == m.Ping()
        assert seen[:2] == ["127.0.0.1", "::1"]

    wire.run(main)


def test_of_several_addresses_one_that_answers_is_used_and_remembered(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        client = wire.transport(keys, "client")
        addresses = (Address("127.0.0.2", 1), Address(HOST, port))
        with socket.create_server((HOST, 0), backlog=0) as silent:  # takes the connection, and says nothing
            mute = Address(HOST, silent.getsockname()[1])
            for _ in range(2):
                assert await call(client, (mute, *addresses), "server", ECHO, m.Ping()) == m.Ping()
            assert client._worked == {"server": Address(HOST, port)}
        stream = await client.connect(addresses, "server", ECHO)
        assert (stream.peer, stream.peer_host) == ("server", HOST)
        assert [address for address, _, _ in client._channels] == [mute, *addresses]

    wire.run(main)


def test_each_address_that_does_not_answer_is_named(wire, keys) -> None:
    async def main() -> None:
        client, addresses = wire.transport(keys, "client"), (Address(HOST, 1), Address("::1", 1))
        with pytest.raises(TransportError) as error:
            await client.connect(addresses, "server", ECHO)
        for address in addresses:
            assert f"server at {address} cannot be reached: Connection refused" in str(error.value)

    wire.run(main)


# ---------------------------------------------------------------------------------------------- who is let in
async def refused(client: GrpcTransport, address: Address, peer: str = "server") -> None:
    with pytest.raises(TransportError):
        await call(client, (address,), peer, ECHO, m.Ping(), 2.0)


def test_a_certificate_of_another_run_is_refused(wire, keys, other_keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        # The stranger trusts our authority, so only the server's own check can stop it.
        await refused(wire.transport(other_keys, "client", keys.authority), Address(HOST, port))

    wire.run(main)


def test_a_server_of_another_run_is_refused(wire, keys, other_keys) -> None:
    async def main() -> None:
        port = await wire.transport(other_keys, "server", keys.authority).serve(
            Address(HOST, 0), {ECHO: echo}
        )
        await refused(wire.transport(keys, "client"), Address(HOST, port))

    wire.run(main)


def test_a_server_with_another_name_than_expected_is_refused(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        await refused(wire.transport(keys, "client"), Address(HOST, port), peer="another")

    wire.run(main)


def test_a_peer_without_a_certificate_is_refused(wire, keys) -> None:
    async def main() -> None:
        from atoll.swarm import grpc_transport

        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        channel = grpc_transport._channel(Address(HOST, port), "server", keys.authority, None)
        wire._closing.append(channel.close)
        with pytest.raises(TransportError):
            address = Address(HOST, port)
            stream = await grpc_transport._open(channel, address, "server", ECHO, 2.0, lambda _: None)
            await stream.send(m.Ping())
            await stream.receive(2.0)

    wire.run(main)


def test_a_service_that_does_not_exist_is_a_transport_error(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {})
        await refused(wire.transport(keys, "client"), Address(HOST, port))

    wire.run(main)


def test_an_address_that_nobody_serves_is_a_transport_error_that_names_it(wire, keys) -> None:
    async def main() -> None:
        with pytest.raises(TransportError, match=r"server at 127\.0\.0\.1:1"):
            await wire.transport(keys, "client").connect((Address(HOST, 1),), "server", ECHO, 0.3)

    wire.run(main)


# --------------------------------------------------------------------------------------------------- breaking
def test_a_peer_that_is_cut_gives_a_transport_error(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        async with Proxy(port) as proxy:
            stream = await wire.transport(keys, "client").connect(
                (Address(HOST, proxy.port),), "server", ECHO
            )
            await stream.send(m.Ping())
            await stream.receive(5)
            waiting = asyncio.create_task(stream.receive(5))
            await asyncio.sleep(0)
            proxy.cut()
            with pytest.raises(TransportError):
                await waiting

    wire.run(main)


def test_sending_on_a_line_that_was_cut_is_a_transport_error(wire, keys) -> None:
    """A recovery does that when its donor has died between two requests."""

    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        async with Proxy(port) as proxy:
            stream = await wire.transport(keys, "client").connect(
                (Address(HOST, proxy.port),), "server", ECHO
            )
            proxy.cut()
            with pytest.raises(TransportError):
                await stream.receive(5)
            with pytest.raises(TransportError):
                await stream.send(m.Ping())

    wire.run(main)


def test_a_peer_that_leaves_gives_a_transport_error_at_the_server_too(wire, keys) -> None:
    async def main() -> None:
        ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def service(stream: Stream) -> None:
            try:
                await echo(stream)
            except TransportError as error:
                ended.set_result(error)
                raise

        client = wire.transport(keys, "client")
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: service})
        stream = await client.connect((Address(HOST, port),), "server", ECHO)
        await stream.send(m.Ping())
        await stream.receive(5)
        await stream.close()
        assert "client" in str(await asyncio.wait_for(ended, 5))

    wire.run(main)


def test_the_end_of_a_service_is_the_end_of_the_stream(wire, keys) -> None:
    async def main() -> None:
        async def brief(stream: Stream) -> None:
            await stream.receive(5)

        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: brief})
        await refused(wire.transport(keys, "client"), Address(HOST, port))

    wire.run(main)


def test_a_silent_peer_is_a_transport_error(wire, keys) -> None:
    async def main() -> None:
        async def mute(stream: Stream) -> None:
            await asyncio.sleep(30)

        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: mute})
        stream = await wire.transport(keys, "client").connect((Address(HOST, port),), "server", ECHO)
        with pytest.raises(TransportError, match="no answer within"):
            await stream.receive(0.05)

    wire.run(main)


def test_a_cancelled_receive_is_cancelled_and_no_transport_error(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        stream = await wire.transport(keys, "client").connect((Address(HOST, port),), "server", ECHO)
        task = asyncio.create_task(stream.receive(5))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    wire.run(main)


def test_an_oversized_frame_is_never_sent(wire, keys) -> None:
    async def main() -> None:
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: echo})
        stream = await wire.transport(keys, "client").connect((Address(HOST, port),), "server", ECHO)
        with pytest.raises(TransportError, match="over the bound"):
            await stream.send(m.Piece(0), bytes(MAX_FRAME_BYTES))

    wire.run(main)


def test_a_donor_that_died_between_two_requests_is_dropped(wire, keys) -> None:
    async def main() -> None:
        async def once(stream: Stream) -> None:
            await stream.receive(5)
            await stream.send(m.Found(1, 0), b"x")

        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {FETCH: once})
        said: list[str] = []
        donors = Donors(wire.transport(keys, "client"), {"server": (Address(HOST, port),)}, said.append)
        await donors.ask(m.FetchTable(0), lambda *_: True, 1)
        (stream,) = donors._idle["server"]
        with pytest.raises(TransportError):
            await stream.receive(5)  # the end of the donor's stream has arrived
        with pytest.raises(NobodyHas):
            await donors.ask(m.FetchTable(0), lambda *_: True, 1)
        assert said[0].startswith("server is dropped")

    wire.run(main)


# --------------------------------------------------------------------------------------------------- counting
class Proxy:
    """A TCP proxy that counts what passes each way, and can cut."""

    def __init__(self, target: int) -> None:
        self.up = self.down = 0
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._target)
        self._writers += [writer, back]
        for source, sink, way in ((reader, back, "up"), (there, writer, "down")):
            task = asyncio.create_task(self._pump(source, sink, way))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        try:
            while data := await source.read(1 << 16):
                setattr(self, way, getattr(self, way) + len(data))
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


def test_the_bytes_that_are_counted_are_those_that_the_socket_sent(wire, keys) -> None:
    async def main() -> None:
        async def swallow(stream: Stream) -> None:
            for _ in range(16):
                await stream.receive(5)
            await stream.send(m.Pong())

        client = wire.transport(keys, "client")
        port = await wire.transport(keys, "server").serve(Address(HOST, 0), {ECHO: swallow})
        async with Proxy(port) as proxy:
            stream = await client.connect((Address(HOST, proxy.port),), "server", ECHO)
            for index in range(16):
                await stream.send(m.Piece(index), bytes(1 << 18))
            await stream.receive(5)
            assert proxy.up > 1 << 22
            assert client.sent_bytes == pytest.approx(proxy.up, rel=0.05)

    wire.run(main)


# -------------------------------------------------------------------------------------------------- enrolment
class Enrolment:
    """An enrolment port that answers as a coordinator would, and remembers the secrets that it was sent."""

    def __init__(self, wire: Wire, keys: RunKeys) -> None:
        self.keys = keys
        self.refusal = ""
        self.secrets: list[str] = []
        self._transport = GrpcTransport(keys.authority_credentials())
        wire._closing.append(self._transport.close)

    async def open(self) -> Ticket:
        async def enrol(stream: Stream) -> None:
            message, _ = await stream.receive(5)
            assert isinstance(message, m.Enroll)
            self.secrets.append(message.secret)
            run = RunInfo(
                run_id=common_name(self.keys.authority),
                name="test",
                recipe={},
                genesis_root=b"root",
                layout=LAYOUT,
                data_digest="",
                record_key=self.keys.record_key,
            )
            if self.refusal:
                await stream.send(m.TicketRefused(self.refusal))
            else:
                await stream.send(m.Enrolled(self.keys.issue(message.csr), run))

        port = await self._transport.serve_strangers(Address(HOST, 0), {ENROLL: enrol})
        authority = self.keys.authority
        hosts = (HostPorts(HOST, port - 1, port, 0),)
        return Ticket(common_name(authority), hosts, fingerprint(authority), "secret")


def test_a_ticket_becomes_a_membership(wire, keys, tmp_path) -> None:
    async def main() -> None:
        enrolment = Enrolment(wire, keys)
        member = await membership.enrol(tmp_path, await enrolment.open(), "Ada")
        assert member.island == island_key(tmp_path)[0]
        assert member.authority == keys.authority
        assert membership.load(tmp_path) == member

    wire.run(main)


def test_a_run_with_another_fingerprint_is_refused_before_it_hears_the_secret(wire, keys, tmp_path) -> None:
    async def main() -> None:
        enrolment = Enrolment(wire, keys)
        ticket = msgspec.structs.replace(await enrolment.open(), fingerprint=b"another-run-here")
        with pytest.raises(UserError, match="another run answers there"):
            await membership.enrol(tmp_path, ticket, "Ada")
        assert enrolment.secrets == []
        assert membership.load(tmp_path) is None

    wire.run(main)


def test_of_the_hosts_in_a_ticket_the_run_is_found_and_comes_first_from_then_on(
    wire, keys, other_keys, tmp_path
) -> None:
    async def main() -> None:
        ticket = await Enrolment(wire, keys).open()
        other = await Enrolment(wire, other_keys).open()  # such as another run in the same local network
        hosts = (HostPorts("127.0.0.2", 1, 2, 3), *other.hosts, *ticket.hosts)
        member = await membership.enrol(tmp_path, msgspec.structs.replace(ticket, hosts=hosts), "Ada")
        assert member.addresses[0] == ticket.hosts[0].for_members
        assert set(member.addresses) == {host.for_members for host in hosts}

    wire.run(main)


def test_a_refused_ticket_is_the_users_mistake_and_leaves_no_membership(wire, keys, tmp_path) -> None:
    async def main() -> None:
        enrolment = Enrolment(wire, keys)
        enrolment.refusal = "this ticket has expired"
        with pytest.raises(UserError, match="has expired"):
            await membership.enrol(tmp_path, await enrolment.open(), "Ada")
        assert membership.load(tmp_path) is None

    wire.run(main)


def test_a_certificate_from_enrolment_opens_the_members_port(wire, keys, tmp_path) -> None:
    async def main() -> None:
        member = await membership.enrol(tmp_path, await Enrolment(wire, keys).open(), "Ada")
        port = await wire.transport(keys, COORDINATOR).serve(Address(HOST, 0), {ECHO: echo})
        transport = GrpcTransport(member.credentials(tmp_path))
        wire._closing.append(transport.close)
        assert await call(transport, (Address(HOST, port),), COORDINATOR, ECHO, m.Ping()) == m.Ping()

    wire.run(main)


def test_a_renewed_certificate_is_kept_and_shown_from_then_on(wire, keys, tmp_path, monkeypatch) -> None:
    async def main() -> None:
        member = await membership.enrol(tmp_path, await Enrolment(wire, keys).open(), "Ada")

        async def operate(stream: Stream) -> None:
            request, _ = await stream.receive(5)
            assert isinstance(request, m.Renew)
            await stream.send(m.Renewed(keys.issue(request.csr)))

        coordinator = wire.transport(keys, COORDINATOR)
        at = (Address(HOST, await coordinator.serve(Address(HOST, 0), {ECHO: echo, OPERATE: operate})),)
        transport = GrpcTransport(member.credentials(tmp_path))
        wire._closing.append(transport.close)
        open_stream = await transport.connect(at, COORDINATOR, ECHO)
        assert not await renewal.renew_if_due(tmp_path, transport, at)  # it is new
        monkeypatch.setattr(renewal, "needs_renewal", lambda certificate: True)
        assert not await renewal.renew_if_due(tmp_path, transport, (Address(HOST, 1),))  # nobody answers
        assert await renewal.renew_if_due(tmp_path, transport, at)
        kept = membership.load(tmp_path)
        assert kept is not None and kept.certificate != member.certificate and kept.island == member.island
        assert transport._credentials.certificate == kept.certificate
        await open_stream.send(m.Ping())  # what is open stays open
        assert (await open_stream.receive(5))[0] == m.Ping()
        assert await call(transport, at, COORDINATOR, ECHO, m.Ping()) == m.Ping()

    wire.run(main)


@pytest.mark.parametrize(
    ("role", "service", "may"),
    [
        ("island", REDUCE, True),
        ("relay", REDUCE, False),  # it has nothing to be reduced
        ("relay", FETCH, True),
        ("operator", FETCH, False),
        ("operator", CONTROL, False),
        ("", CONTROL, False),  # a certificate of an older atoll
    ],
)
def test_what_a_role_may_call_is_checked_at_the_door(wire, keys, tmp_path, role, service, may) -> None:
    async def main() -> None:
        served: list[str] = []

        async def handle(stream: Stream) -> None:
            served.append(stream.peer)

        _, key, csr = island_key(tmp_path)
        caller = GrpcTransport(Credentials(key, keys.issue(csr, role), keys.authority))
        wire._closing.append(caller.close)
        at = (Address(HOST, await wire.transport(keys, "server").serve(Address(HOST, 0), {service: handle})),)
        stream = await caller.connect(at, "server", service)
        with pytest.raises(TransportError):  # the end of the stream, at once
            await stream.receive(5)
        assert served == ([island_key(tmp_path)[0]] if may else [])

    wire.run(main)


def test_something_else_on_the_enrolment_port_is_a_transport_error() -> None:
    async def main() -> None:
        async def noise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(noise, HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(TransportError, match="speaks no TLS"):
                await enrolment_line(Ticket("test-1", (HostPorts(HOST, port - 1, port, 0),), b"f", "s"))

    asyncio.run(main())


def test_a_server_whose_start_is_cancelled_ends_without_a_word(keys) -> None:
    """A Ctrl-C in a coordinator's first seconds is noticed when it begins to serve."""
    said: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        transport = GrpcTransport(keys.new_credentials(COORDINATOR))
        serving = asyncio.create_task(transport.serve(Address(HOST, 0), {ECHO: echo}))
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert serving.cancelled()
        await transport.close()

    asyncio.run(main())
    gc.collect()
    assert said == []
