"""The real transport: gRPC (aio) with mutual TLS; control and bulk travel on connections of their own."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar, cast
from urllib.parse import unquote

import grpc
import grpc.aio

from atoll.errors import UserError
from atoll.swarm.identity import Credentials, Ticket, fingerprint
from atoll.swarm.messages import enrolment
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.swarm.services import CONTROL, ENROLL, Service
from atoll.swarm.transport import MAX_FRAME_BYTES, Handler, Stream, TransportError, pack, unpack, within

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
    ("grpc.so_reuseport", 0),  # else two processes take the same port and each gets half the calls
]
_HANDSHAKE_BYTES = 3_000  # of a mutual TLS handshake, one way
_FRAME_OVERHEAD = 9 + 22 + 5  # HTTP/2 frame header, TLS 1.3 record, gRPC prefix


def wire_bytes(size: int) -> int:
    """What a frame of `size` bytes takes on the socket: one HTTP/2 frame and TLS record per 16 KiB."""
    return size + _FRAME_OVERHEAD * (1 + size // 16_384)


class GrpcStream(Generic[T]):
    """One call, at either end: both of gRPC's call objects read and write alike."""

    def __init__(
        self, call: Any, door: Door[T], peer: str, peer_host: str, count: Callable[[int], None]
    ) -> None:
        self.peer = peer
        self.peer_host = peer_host
        self._call = call
        self._door = door
        self._count = count

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        frame = pack(message, bulk)
        if len(frame) > MAX_FRAME_BYTES:
            raise TransportError(f"a frame of {len(frame)} bytes is over the bound")
        await self._guard(self._call.write(frame))
        self._count(wire_bytes(len(frame)))

    async def receive(self, seconds: float) -> tuple[T, memoryview]:
        frame = await self._guard(within(seconds, self._call.read(), self.peer))
        if not isinstance(frame, bytes):  # gRPC's end-of-stream mark
            raise TransportError(f"{self.peer}: the other end closed the stream")
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

    def __init__(self, credentials: Credentials) -> None:
        self.sent_bytes = 0
        self._credentials = credentials
        self._channels: dict[tuple[str, str, bool], grpc.aio.Channel] = {}
        self._servers: list[grpc.aio.Server] = []

    async def connect(
        self, address: str, peer: str, service: Service[Any, T], seconds: float = 10.0
    ) -> Stream[T]:
        key = (address, peer, service is CONTROL)  # whose messages no bulk may delay
        if key not in self._channels:
            self._channels[key] = _channel(address, peer, self._credentials.authority, self._credentials)
            self._count(_HANDSHAKE_BYTES)
        return await _open(self._channels[key], address, peer, service, seconds, self._count)

    async def serve(self, host: str, port: int, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        own = self._credentials
        secure = grpc.ssl_server_credentials(
            [(own.key, own.certificate)], own.authority, require_client_auth=True
        )
        return await self._serve(host, port, handlers, secure)

    async def serve_strangers(
        self, host: str, port: int, handlers: Mapping[Service[Any, Any], Handler]
    ) -> int:
        """Like `serve`, for peers that have no certificate yet: the enrolment port."""
        own = self._credentials
        return await self._serve(
            host, port, handlers, grpc.ssl_server_credentials([(own.key, own.certificate)])
        )

    async def close(self) -> None:
        for server in self._servers:
            await server.stop(0.2)
        for channel in self._channels.values():
            await channel.close()
        self._servers, self._channels = [], {}

    def _count(self, size: int) -> None:
        self.sent_bytes += size

    async def _serve(
        self, host: str, port: int, handlers: Mapping[Service[Any, Any], Handler], secure: Any
    ) -> int:
        server = grpc.aio.server(options=_OPTIONS)
        methods: dict[str, Any] = {
            service.name: grpc.stream_stream_rpc_method_handler(self._method(service, handler))
            for service, handler in handlers.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("atoll", methods),))
        try:
            taken = server.add_secure_port(f"{host}:{port}", secure)
        except RuntimeError:
            raise UserError(f"{host}:{port}: {_why_not_served(host, port)}") from None
        await server.start()
        self._servers.append(server)
        return taken

    def _method(
        self, service: Service[Any, Any], handler: Handler
    ) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        async def handle(_: AsyncIterator[bytes], context: Any) -> None:
            names = context.auth_context().get("x509_common_name", [b""])
            host = unquote(str(context.peer())).split(":", 1)[-1].rsplit(":", 1)[0]  # "ipv6:%5B::1%5D:4711"
            try:
                peer = names[0].decode()
                await handler(GrpcStream(context, service.server_door, peer, host, self._count))
            except TransportError:
                return  # the peer broke off or broke a rule; it sees the end of the stream

        return handle


async def enrolment_stream(
    ticket: Ticket, seconds: float = 10.0
) -> tuple[Stream[enrolment.ToStranger], bytes, Callable[[], Awaitable[None]]]:
    """A stream to the enrolment port of the run that a ticket names, the run's certificate (PEM), and how to
    close.

    The certificate is fetched unverified and must then have the fingerprint in the ticket; the call itself is
    made over TLS that trusts nothing else. Raises TransportError; UserError when another run answers there.
    """
    host, _, port = ticket.address.rpartition(":")
    where = (host, int(port) + 1)
    try:
        pem = await asyncio.to_thread(ssl.get_server_certificate, where, timeout=seconds)
    except OSError as error:
        raise TransportError(f"{ticket.address}: no coordinator answers there ({error})") from None
    authority = pem.encode()
    if fingerprint(authority) != ticket.fingerprint:
        raise UserError(
            f"{ticket.address}: another run answers there than the one this ticket is for; ask for a "
            "new ticket"
        )
    address = f"{host}:{where[1]}"
    channel = _channel(address, ticket.run_id, authority, None)
    try:
        stream = await _open(channel, address, ticket.run_id, ENROLL, seconds, lambda _: None)
    except TransportError:
        await channel.close()
        raise
    return stream, authority, channel.close


def _why_not_served(host: str, port: int) -> str:
    """gRPC does not say why it could not bind; a plain socket does."""
    try:
        with socket.create_server(
            (host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ):
            return "cannot be served on just now; try again or choose another port"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "the port is in use; stop what holds it or choose another port"
        return (
            f"cannot be served on ({error.strerror}); give an address of this machine and a port that is "
            "free to you"
        )


def _channel(address: str, peer: str, authority: bytes, own: Credentials | None) -> grpc.aio.Channel:
    if own is None:
        secure = grpc.ssl_channel_credentials(authority)
    else:
        secure = grpc.ssl_channel_credentials(authority, own.key, own.certificate)
    return grpc.aio.secure_channel(
        address, secure, options=[*_OPTIONS, ("grpc.ssl_target_name_override", peer)]
    )


async def _open(
    channel: grpc.aio.Channel,
    address: str,
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
        raise TransportError(f"{peer} at {address} cannot be reached: {error.details()}") from None
    except TransportError:
        call.cancel()
        raise
    return GrpcStream(call, service.caller_door, peer, address.rpartition(":")[0], count)
