"""Every field that a peer fills in has a bound, and what is over it is refused before it is decoded."""

import tracemalloc
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest

import examples
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.bounds import MAX_NUMBER
from atoll.swarm.messages import control, enrolment, operator, peers
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message

FROM_PEERS: list[Door[Any]] = [
    control.COORDINATOR_DOOR,
    enrolment.COORDINATOR_DOOR,
    operator.COORDINATOR_DOOR,
    peers.PINGED_DOOR,
    peers.PINGING_DOOR,
    peers.OWNER_DOOR,
    peers.PARTICIPANT_DOOR,
    peers.DONOR_DOOR,
    peers.FETCHER_DOOR,
]
BOUNDED_BY_THEMSELVES = {bool, float, NoneType, Address}


def unbounded(wanted: Any, path: str) -> list[str]:
    """The paths below `path` whose values may be of any size."""
    origin = get_origin(wanted)
    arguments = [a for a in get_args(wanted) if a is not Ellipsis]
    if origin is Annotated:
        inner, *metas = get_args(wanted)
        assert any(isinstance(meta, msgspec.Meta) for meta in metas)
        return [found for argument in get_args(inner) for found in unbounded_inside(argument, path)]
    if wanted in BOUNDED_BY_THEMSELVES or origin is Literal:
        return []
    if origin in (UnionType, Union):
        return [found for argument in arguments for found in unbounded(argument, path)]
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return [
            found
            for field in msgspec.structs.fields(wanted)
            for found in unbounded(field.type, f"{path}.{field.name}")
        ]
    if origin is tuple and Ellipsis not in get_args(wanted):
        return [found for argument in arguments for found in unbounded(argument, path)]
    return [path]


def unbounded_inside(wanted: Any, path: str) -> list[str]:
    return [] if wanted is Ellipsis else unbounded(wanted, path)


@pytest.mark.parametrize("door", FROM_PEERS, ids=lambda door: door._reader + " from " + door._writer)
def test_every_field_that_a_peer_fills_in_has_a_bound(door) -> None:
    assert [found for kind in door.messages for found in unbounded(kind, kind.__name__)] == []


def replaced(message: Message, **changes: Any) -> bytes:
    """The message with fields that its type does not allow."""
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    return msgspec.msgpack.encode({**fields, **changes})


ENROLL = m.Enroll(secret="s", csr=b"", contributor="")
REDUCED = m.Reduced(step=0, number=1, slice=0, digest=b"d" * 32, squared_norms=())
OVER = [
    (control.COORDINATOR_DOOR, replaced(REDUCED, digest=bytes(4 << 20))),
    (control.COORDINATOR_DOOR, replaced(REDUCED, digest=b"short")),
    (control.COORDINATOR_DOOR, replaced(REDUCED, step=2**63)),
    (control.COORDINATOR_DOOR, replaced(REDUCED, number=MAX_NUMBER + 1)),
    (control.COORDINATOR_DOOR, replaced(REDUCED, slice=-1)),
    (control.COORDINATOR_DOOR, replaced(m.Beat(step=0, inner_step=0), note="x" * 100_000)),
    (control.COORDINATOR_DOOR, replaced(m.Beat(step=0, inner_step=0), inner_step=2**63)),
    (control.COORDINATOR_DOOR, replaced(m.WantRecords(0), since=2**40)),
    (control.COORDINATOR_DOOR, replaced(examples.hello(), contributor="x" * 1000)),
    (control.COORDINATOR_DOOR, replaced(examples.hello(), session="x" * 1000)),
    (control.COORDINATOR_DOOR, replaced(examples.hello(), partitions={f"s/{i}": i for i in range(5000)})),
    (control.COORDINATOR_DOOR, replaced(examples.hello(), addresses=[["host", 1]] * 1000)),
    (enrolment.COORDINATOR_DOOR, replaced(ENROLL, csr=bytes(1 << 20))),
    (
        enrolment.COORDINATOR_DOOR,
        replaced(ENROLL, link="javascript:x"),
    ),
    (enrolment.COORDINATOR_DOOR, replaced(ENROLL, link="https://a\n")),
    (enrolment.COORDINATOR_DOOR, replaced(m.Look("s"), port=65_536)),
    (
        enrolment.COORDINATOR_DOOR,
        replaced(ENROLL, contributor="x" * 81),
    ),
    (peers.DONOR_DOOR, replaced(m.FetchBlock("f", 0), file="x" * 100_000)),
    (peers.DONOR_DOOR, replaced(m.FetchChunk(0), index=2**40)),
    (peers.FETCHER_DOOR, replaced(m.Missing(""), reason="x" * 100_000)),
]


@pytest.mark.parametrize(("door", "data"), OVER)
def test_a_field_over_its_bound_is_refused(door, data) -> None:
    with pytest.raises(ValueError, match="takes no such message"):
        door.decode(data)


def empty_maps(name: str, field: str) -> bytes:
    """A message whose field is as many empty maps as a frame holds."""
    count = (4 << 20) - 100
    head = msgspec.msgpack.encode({"type": name})[1:] + msgspec.msgpack.encode(field)
    return b"\x82" + head + b"\xdd" + count.to_bytes(4, "big") + b"\x80" * count


@pytest.mark.parametrize(
    ("door", "name", "field"),
    [
        (enrolment.COORDINATOR_DOOR, "Enroll", "secret"),
        (control.COORDINATOR_DOOR, "Propose", "lease"),
        (control.COORDINATOR_DOOR, "Reduced", "squared_norms"),
        (peers.DONOR_DOOR, "FetchBlock", "file"),
    ],
)
def test_a_message_over_its_doors_bound_takes_no_memory(door, name: str, field: str) -> None:
    data = empty_maps(name, field)
    tracemalloc.start()
    with pytest.raises(ValueError, match="bytes, where at most"):
        door.decode(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20
