"""The real transport: gRPC (aio) with mutual TLS; control and bulk travel on connections of their own."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast
from urllib.parse import unquote

import grpc
import grpc.aio

from atoll.errors import UserError
from atoll.swarm.address import Address, HostPorts
from atoll.swarm.dial import certificate_at, first_to_answer
from atoll.swarm.identity import Credentials, Ticket, check_clock, fingerprint, role_among
from atoll.swarm.limiter import Limiter
from atoll.swarm.limits import Doorkeeper
from atoll.swarm.messages import enrolment
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.swarm.services import CONTROL, ENROLL, Service
from atoll.swarm.sockets import Connections, Crossed
from atoll.swarm.transport import (
    DIAL_SECONDS,
    MAX_FRAME_BYTES,
    Handler,
    Stream,
    TransportError,
    pack,
    unpack,
    within,
)

T = TypeVar("T", bound=Message)

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # else our own keepalive earns a GOAWAY
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # else two channels to one peer share one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.server_handshake_timeout_ms", 5_000),  # else a stranger holds a handle for two minutes
    ("grpc.so_reuseport", 0),  # else two processes take the same port and each gets half the calls
]
_HANDSHAKE_BYTES = 3_000  # of a mutual TLS handshake, one way
_FRAME_OVERHEAD = 9 + 22 + 5  # HTTP/2 frame header, TLS 1.3 record, gRPC prefix


def wire_bytes(size: int) -> int:
    """What a frame of `size` bytes takes on the socket: one HTTP/2 frame and TLS record per 16 KiB."""
    return size + _FRAME_OVERHEAD * (1 + size // 16_384)


class Caps(NamedTuple):
    """What all bulk of one member together may take of its link."""

    up: Limiter
    down: Limiter


NO_CAPS = Caps(Limiter(), Limiter())


class GrpcStream(Generic[T]):
    """One call, at either end: both of gRPC's call objects read and write alike."""

    def __init__(
        self, call: Any, door: Door[T], peer: str, peer_host: str, count: Callable[[int], None]
    ) -> None:
        self.peer = peer
        self.peer_host = peer_host
        self.caps = NO_CAPS
        self._call = call
        self._door = door
        self._count = count

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        frame = pack(message, bulk)
        if len(frame) > MAX_FRAME_BYTES:
            raise TransportError(f"a frame of {len(frame)} bytes is over the bound")
        await self.caps.up.turn(len(frame))
        await self._guard(self._call.write(frame))
        self._count(wire_bytes(len(frame)))

    async def receive(self, seconds: float) -> tuple[T, memoryview]:
        frame = await self._guard(within(seconds, self._call.read(), self.peer))
        if not isinstance(frame, bytes):  # gRPC's end-of-stream mark
            raise TransportError(f"{self.peer}: the other end closed the stream")
        await self.caps.down.turn(len(frame))  # what is not read is not sent for long
        return unpack(frame, self._door)

    async def close(self) -> None:
        if isinstance(self._call, grpc.aio.Call):  # a server's call ends when its service returns
            self._call.cancel()

    async def _guard(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.InternalError) as error:
            reason = (
                (error.details() or str(error.code()))
                if isinstance(error, grpc.aio.AioRpcError)
                else str(error)
            )
            raise TransportError(f"{self.peer}: {reason}") from None
        except asyncio.InvalidStateError:  # "RPC already finished": the peer went between two of our calls
            raise TransportError(f"{self.peer}: the other end closed the stream") from None
        except asyncio.CancelledError:
            # A call that gRPC itself has cancelled looks like a cancellation of our task: tell the two apart.
            task = asyncio.current_task()
            if task is not None and task.cancelling() == 0:
                raise TransportError(f"{self.peer}: the call was cancelled") from None
            raise


class GrpcTransport:
    """Dials and serves with one member's credentials."""

    def __init__(self, credentials: Credentials, caps: Caps = NO_CAPS) -> None:
        """`caps` hold for everything but what members and their coordinator say."""
        self.sent_bytes = 0
        self._credentials = credentials
        self._caps = caps
        self._channels: dict[tuple[Address, str, str | int], grpc.aio.Channel] = {}
        self._renewed: list[grpc.aio.Channel] = []  # that were made with an older certificate
        self._worked: dict[str, Address] = {}  # by peer: where it was reached last
        self._servers: list[grpc.aio.Server] = []
        self._doorkeeper = Doorkeeper()
        self._connections = Connections()

    async def connect(
        self,
        addresses: Sequence[Address],
        peer: str,
        service: Service[Any, T],
        seconds: float = DIAL_SECONDS,
        lane: int = 0,
    ) -> Stream[T]:
        async def dial(address: Address) -> GrpcStream[T]:
            # No bulk may delay what the coordinator and its members say.
            key = (address, peer, CONTROL.name if service is CONTROL else lane)
            if key not in self._channels:
                self._channels[key] = _channel(address, peer, self._credentials.authority, self._credentials)
                self._count(_HANDSHAKE_BYTES)
            stream = await _open(self._channels[key], address, peer, service, seconds, self._count)
            stream.caps = NO_CAPS if service is CONTROL else self._caps
            return stream

        ordered = sorted(addresses, key=lambda address: address != self._worked.get(peer))
        self._worked[peer], stream = await first_to_answer(ordered, dial, GrpcStream[T].close)
        return stream

    async def serve(self, listen: Address, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        shown = self._credentials

        def configuration(own: Credentials) -> Any:
            return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], own.authority)

        def renewed() -> Any:
            """What gRPC asks at every handshake: None while nothing is new.

            With a configuration each time agents crashed (SIGSEGV in grpcio 1.85.3) when several peers
            dialled them at once, as lanes do.
            """
            nonlocal shown
            if self._credentials is shown:
                return None
            shown = self._credentials
            return configuration(shown)

        secure = grpc.dynamic_ssl_server_credentials(
            configuration(shown), renewed, require_client_authentication=True
        )
        return await self._serve(listen, handlers, secure)

    def renew(self, credentials: Credentials) -> None:
        """Show this certificate at every handshake from now on; connections that are open stay."""
        self._credentials = credentials
        self._renewed += self._channels.values()
        self._channels = {}

    async def serve_strangers(self, listen: Address, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        """Like `serve`, for peers that have no certificate yet: the enrolment port."""
        own = self._credentials
        secure = grpc.ssl_server_credentials([(own.key, own.certificate)])
        return await self._serve(listen, handlers, secure, enrolment.FRAME_BYTES)

    def revoke(self, peers: Iterable[str]) -> None:
        self._doorkeeper.revoke(peers)

    def crossed(self) -> Mapping[int, Crossed]:
        return self._connections.crossed()

    async def close(self) -> None:
        for server in self._servers:
            await server.stop(0.2)
        for channel in (*self._channels.values(), *self._renewed):
            await channel.close()
        self._servers, self._channels, self._renewed = [], {}, []

    def _count(self, size: int) -> None:
        self.sent_bytes += size

    async def _serve(
        self,
        listen: Address,
        handlers: Mapping[Service[Any, Any], Handler],
        secure: Any,
        max_bytes: int = MAX_FRAME_BYTES,
    ) -> int:
        """`max_bytes`: of a frame that it receives."""
        received: list[tuple[str, Any]] = [("grpc.max_receive_message_length", max_bytes)]
        server = grpc.aio.server(options=received + [o for o in _OPTIONS if o[0] != received[0][0]])
        methods: dict[str, Any] = {
            service.name: grpc.stream_stream_rpc_method_handler(
                self._method(service, self._doorkeeper.within_limits(service, handler))
            )
            for service, handler in handlers.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("atoll", methods),))
        try:
            taken = server.add_secure_port(str(listen), secure)
        except RuntimeError:
            reason = (
                why_not_served(listen) or "cannot be served on just now; try again or choose another port"
            )
            raise UserError(f"{listen}: {reason}") from None
        starting = asyncio.ensure_future(server.start())
        try:
            await asyncio.shield(starting)
        finally:  # gRPC cannot stop a server whose start was cancelled
            await starting
            self._servers.append(server)
        return taken

    def _method(
        self, service: Service[Any, Any], handler: Handler
    ) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        async def handle(_: AsyncIterator[bytes], context: Any) -> None:
            seen = context.auth_context()
            names = seen.get("x509_common_name", [b""])
            role = role_among(name.decode() for name in seen.get("x509_subject_alternative_name", []))
            host = _seen_host(str(context.peer()))
            try:
                if objection := service.objection(role):
                    raise TransportError(objection)
                peer = names[0].decode()
                stream = GrpcStream(context, service.server_door, peer, host, self._count)
                stream.caps = NO_CAPS if service is CONTROL else self._caps
                await handler(stream)
            except TransportError:
                return  # the peer broke off or broke a rule; it sees the end of the stream

        return handle


class EnrolmentLine(NamedTuple):
    """A stranger's line to the coordinator of the run that its ticket is for."""

    stream: Stream[enrolment.ToStranger]
    host: HostPorts  # which of those in the ticket answered
    authority: bytes  # the run's certificate, PEM
    close: Callable[[], Awaitable[None]]


async def enrolment_line(ticket: Ticket) -> EnrolmentLine:
    """A line to the enrolment port of the run that a ticket names.

    The run's certificate is fetched unverified and must then have the fingerprint in the ticket; the call
    itself is made over TLS that trusts nothing else. Raises TransportError; UserError when another run
    answers there, or a clock is wrong.
    """
    others: list[Address] = []  # where another run answers: perhaps a machine of another network

    async def find(host: HostPorts) -> tuple[Address, bytes]:
        where, certificate = await certificate_at(host.for_strangers)
        authority = ssl.DER_cert_to_PEM_cert(certificate).encode()
        if fingerprint(authority) != ticket.fingerprint:
            others.append(host.for_strangers)
            raise TransportError(f"{host.for_strangers}: another run answers there")
        return where, authority

    async def forget(_: tuple[Address, bytes]) -> None: ...

    try:
        host, (where, authority) = await first_to_answer(ticket.hosts, find, forget)
    except TransportError:
        if len(others) < len(ticket.hosts):
            raise
        raise UserError(
            f"{others[0]}: another run answers there than the one this ticket is for; ask for a new ticket"
        ) from None
    check_clock(authority)
    channel = _channel(where, ticket.run_id, authority, None)
    try:
        stream = await _open(channel, where, ticket.run_id, ENROLL, DIAL_SECONDS, lambda _: None)
    except TransportError:
        await channel.close()
        raise
    return EnrolmentLine(stream, host, authority, channel.close)


def why_not_served(listen: Address) -> str:
    """Why a port cannot be served on, "" if it can. gRPC does not say; a plain socket does."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        with socket.create_server((listen.host, listen.port), family=family):
            return ""
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "the port is in use; stop what holds it or choose another port"
        return (
            f"cannot be served on ({error.strerror}); give an address of this machine and a port that is "
            "free to you"
        )


def _seen_host(peer: str) -> str:
    """The IP address in gRPC's name of a peer: "ipv4:192.0.2.1:4711", "ipv6:%5B2001:db8::1%5D:4711"."""
    return unquote(peer).split(":", 1)[-1].rsplit(":", 1)[0].strip("[]")


def _reason(details: str) -> str:
    """What gRPC says of a connection that failed, without what it says of all connections that fail."""
    if details.startswith(("failed to connect to all addresses", "errors resolving")):
        return details.rsplit(": ", 1)[-1].rstrip(".]")
    return details


def _channel(address: Address, peer: str, authority: bytes, own: Credentials | None) -> grpc.aio.Channel:
    if own is None:
        secure = grpc.ssl_channel_credentials(authority)
    else:
        secure = grpc.ssl_channel_credentials(authority, own.key, own.certificate)
    return grpc.aio.secure_channel(
        str(address), secure, options=[*_OPTIONS, ("grpc.ssl_target_name_override", peer)]
    )


async def _open(
    channel: grpc.aio.Channel,
    address: Address,
    peer: str,
    service: Service[Any, T],
    seconds: float,
    count: Callable[[int], None],
) -> GrpcStream[T]:
    method = f"/atoll/{service.name}"
    call = cast(Any, channel.stream_stream(method)())  # pyright: ignore[reportUnknownMemberType]
    try:
        await within(seconds, call.wait_for_connection(), f"{peer} at {address}")
    except grpc.aio.AioRpcError as error:
        reason = _reason(error.details() or str(error.code()))
        raise TransportError(f"{peer} at {address} cannot be reached: {reason}") from None
    except BaseException:  # too late, or another address has answered
        call.cancel()
        raise
    return GrpcStream(call, service.caller_door, peer, address.host, count)
