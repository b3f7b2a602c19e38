"""Frames that break a rule are TransportErrors and nothing else; how `within` and `together` fail and end."""

import asyncio
import contextlib
import socket
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.doors import ANYTHING, ECHO

from atoll.agent.frames import frame, read_frame
from atoll.errors import UserError
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.layout import Layout
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.records import RunInfo, Term, encode
from atoll.swarm.services import PING
from atoll.swarm.transport import (
    MAX_FRAME_BYTES,
    TransportError,
    call,
    expect,
    pack,
    together,
    unpack,
    within,
)

HELLO = m.Hello(
    session="s",
    version=m.VERSION,
    recipe_digest="r",
    self_test=b"t",
    contributor="Ada",
    relay=False,
    port=7,
    addresses=(),
    head=3,
    head_root=b"root",
    term=Term(2, "n"),
)


# ----------------------------------------------------------------------------------------------------- frames
def test_a_frame_gives_back_message_and_bulk() -> None:
    message, bulk = unpack(pack(HELLO, b"bulk"), ANYTHING)
    assert message == HELLO
    assert bytes(bulk) == b"bulk"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_transport_error_or_a_message(data: bytes) -> None:
    with contextlib.suppress(TransportError):
        unpack(data, ANYTHING)


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_a_false_length_is_a_transport_error_or_a_message(data: bytes, length: int) -> None:
    with contextlib.suppress(TransportError):
        unpack(struct.pack("<I", length) + data, ANYTHING)


@given(st.data())
@settings(max_examples=200)
def test_a_message_with_changed_bytes_is_a_transport_error_or_a_message(data) -> None:
    whole = bytearray(pack(HELLO, b"bulk"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TransportError):
        unpack(bytes(whole[: data.draw(st.integers(0, len(whole)))]), ANYTHING)


WORDS = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
)
NAMES = st.sampled_from(["Hello", "Plan", "Attempt", "Enrolled", "Committed", "Pong", "Records"])
FIELDS = st.sampled_from(
    ["step", "term", "run", "certificate", "participants", "record", "records", "number", "since"]
)


@given(NAMES, st.dictionaries(FIELDS, JSON, max_size=4))
def test_known_messages_with_wild_fields_are_transport_errors(name: str, fields: dict[str, Any]) -> None:
    head = msgspec.msgpack.encode({"type": name, **fields})
    with contextlib.suppress(TransportError):
        unpack(struct.pack("<I", len(head)) + head, ANYTHING)


def test_deep_nesting_is_a_transport_error() -> None:
    head = msgspec.msgpack.encode({"type": "StatusReply", "status": {}})[:-1]
    deep = head + b"\x81\xa1a" * 100_000 + b"\x80"
    with pytest.raises(TransportError):
        unpack(struct.pack("<I", len(deep)) + deep, ANYTHING)


def test_an_unknown_field_is_refused() -> None:
    head = msgspec.msgpack.encode({"type": "Pong", "extra": 1})
    with pytest.raises(TransportError, match="extra"):
        unpack(struct.pack("<I", len(head)) + head, ANYTHING)


def test_a_frame_over_the_bound_is_refused() -> None:
    largest = pack(m.Pong(), bytes(MAX_FRAME_BYTES - len(pack(m.Pong()))))
    unpack(largest, ANYTHING)
    with pytest.raises(TransportError, match="not valid"):
        unpack(largest + b"x", ANYTHING)


def test_equal_messages_have_equal_bytes() -> None:
    one = RunInfo(
        run_id="r",
        name="n",
        recipe={"a": 1, "b": {"c": 2, "d": 3}},
        genesis_root=b"",
        layout=Layout(()),
        data_digest="",
        record_key=b"",
    )
    other = msgspec.structs.replace(one, recipe={"b": {"d": 3, "c": 2}, "a": 1})
    assert encode(one) == encode(other)


def test_an_unexpected_message_is_a_transport_error() -> None:
    assert expect(HELLO, m.Hello) is HELLO
    with pytest.raises(TransportError, match="expected Pong, got Hello"):
        expect(HELLO, m.Pong)


# ------------------------------------------------------------------------------------------------- the socket
def test_a_message_may_arrive_over_the_local_socket_in_parts() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for byte in frame(HELLO):
            ours.sendall(bytes([byte]))
        assert read_frame(theirs, ANYTHING) == HELLO


TOO_LARGE, TOO_SHORT = struct.pack("<I", MAX_FRAME_BYTES + 1), struct.pack("<I", 3) + b"abc"


@pytest.mark.parametrize("data", [b"", b"\x01", frame(HELLO)[:-1], TOO_LARGE, TOO_SHORT])
def test_a_socket_that_ends_or_sends_a_false_length_is_a_transport_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.close()
        with pytest.raises(TransportError):
            read_frame(theirs, ANYTHING)


# ----------------------------------------------------------------------------------------------------- within
def run(work: Any) -> Any:
    return asyncio.run(work)


async def sleep(seconds: float = 30.0) -> None:
    await asyncio.sleep(seconds)


async def fail(error: BaseException, after: float = 0.0) -> None:
    await asyncio.sleep(after)
    raise error


def test_a_wait_that_takes_too_long_is_a_transport_error_that_names_it() -> None:
    with pytest.raises(TransportError, match=r"the other: no answer within 0\.0 s"):
        run(within(0.01, sleep(), "the other"))


def test_within_gives_the_result_of_what_ends_in_time() -> None:
    assert run(within(5.0, asyncio.sleep(0, "result"), "x")) == "result"


def test_a_cancellation_goes_through_within() -> None:
    async def main() -> None:
        task = asyncio.create_task(within(30.0, sleep(), "x"))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())


# --------------------------------------------------------------------------------------------------- together
def test_together_with_nothing_ends_at_once() -> None:
    run(together())


def test_together_waits_for_all() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
        done.append(number)

    run(together(work(2), work(0), work(1)))
    assert done == [0, 1, 2]


def test_one_failure_cancels_the_others_and_is_raised() -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await sleep()
        finally:
            ended.append("cleaned up")

    with pytest.raises(TransportError, match="cause"):
        run(together(other(), fail(TransportError("cause"), 0.001), other()))
    assert ended == ["cleaned up"] * 2


def test_the_failure_that_came_first_is_raised() -> None:
    async def fails_when_cancelled() -> None:
        try:
            await sleep()
        finally:
            raise TransportError("consequence")

    with pytest.raises(TransportError, match="cause"):
        run(together(fails_when_cancelled(), fail(TransportError("cause"), 0.001)))


def test_a_cancellation_from_outside_ends_all_and_stays_a_cancellation() -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await sleep()
        finally:
            ended.append("cleaned up")

    async def main() -> None:
        task = asyncio.create_task(together(other(), other()))
        await asyncio.sleep(0.001)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())
    assert len(ended) == 2


def test_a_cancellation_from_outside_is_not_lost_when_a_child_fails_at_the_same_time() -> None:
    async def main() -> None:
        failing = asyncio.Event()

        async def child() -> None:
            await failing.wait()
            raise TransportError("at the same time")

        task = asyncio.create_task(together(child(), sleep()))
        await asyncio.sleep(0.001)
        failing.set()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())


# --------------------------------------------------------------------------------------- the memory transport
class Pair:
    """A member "b" that serves an echo, and a member "a" that can dial it."""

    def __init__(self) -> None:
        self.network = Network()
        self.a, self.b = MemoryTransport(self.network, "a"), MemoryTransport(self.network, "b")
        self.peers: list[str] = []

    async def open(self) -> Address:
        async def echo(stream: Any) -> None:
            self.peers.append(stream.peer)
            while True:
                await stream.send(*await stream.receive(5))

        return Address("m", await self.b.serve(Address("m", 0), {ECHO: echo}))


def test_a_call_is_answered_and_the_service_knows_who_asks() -> None:
    async def main() -> None:
        pair = Pair()
        address = await pair.open()
        assert await call(pair.a, (address,), "b", ECHO, HELLO) == HELLO
        assert pair.peers == ["a"]

    run(main())


def test_each_end_counts_what_it_sent() -> None:
    async def main() -> None:
        pair = Pair()
        await call(pair.a, (await pair.open(),), "b", ECHO, HELLO)
        assert pair.a.sent_bytes == pair.b.sent_bytes == len(pack(HELLO))

    run(main())


def test_a_peer_that_cannot_be_reached_is_named() -> None:
    async def main() -> None:
        pair = Pair()
        address = await pair.open()
        for where, peer, service in (
            (Address("m", 9), "b", ECHO),
            (address, "c", ECHO),
            (address, "b", PING),
        ):
            with pytest.raises(TransportError, match=peer):
                await pair.a.connect((where,), peer, service)
        pair.network.cut_edge("a", "b")
        with pytest.raises(TransportError, match="b"):
            await pair.a.connect((address,), "b", ECHO)

    run(main())


def test_a_cut_or_severed_stream_fails_at_both_ends() -> None:
    async def main() -> None:
        for break_it in (lambda n: n.cut_edge("a", "b"), lambda n: n.sever("b"), lambda n: n.sever("a")):
            pair = Pair()
            stream = await pair.a.connect((await pair.open(),), "b", ECHO)
            waiting = asyncio.create_task(stream.receive(5))
            await asyncio.sleep(0)
            break_it(pair.network)
            with pytest.raises(TransportError):
                await waiting
            with pytest.raises(TransportError):
                await stream.send(HELLO)

    run(main())


def test_an_address_is_served_once() -> None:
    async def main() -> None:
        pair = Pair()
        address = await pair.open()
        with pytest.raises(UserError, match="in use"):
            await pair.a.serve(address, {})

    run(main())


def test_a_sender_waits_while_nobody_reads() -> None:
    async def main() -> None:
        pair = Pair()

        async def deaf(_: Any) -> None:
            await sleep()

        port = await pair.b.serve(Address("m", 0), {ECHO: deaf})
        stream = await pair.a.connect((Address("m", port),), "b", ECHO)
        with pytest.raises(TransportError, match="no answer"):
            for _ in range(1000):
                await within(0.02, stream.send(HELLO), "b")
        await pair.b.close()
        await asyncio.sleep(0)

    run(main())


def test_an_oversized_frame_is_never_sent() -> None:
    async def main() -> None:
        pair = Pair()
        stream = await pair.a.connect((await pair.open(),), "b", ECHO)
        with pytest.raises(TransportError, match="over the bound"):
            await stream.send(m.Pong(), bytes(MAX_FRAME_BYTES))
        assert pair.a.sent_bytes == 0

    run(main())
