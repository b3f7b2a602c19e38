"""Bytes and messages of hostile peers: a TransportError at the door, and nothing unexpected behind it."""

import contextlib
import struct
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.test_bounds import FROM_PEERS

import examples
from atoll.agent.donor import Donor
from atoll.agent.log import UpdateLog
from atoll.agent.state import OuterState
from atoll.coordinator.effects import Joined, Left, Reached, Received, Send, Tick
from atoll.coordinator.protocol import Coordinator
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.layout import BLOCK, Layout, TensorSpec
from atoll.swarm.messages import control, peers
from atoll.swarm.records import Message, Term
from atoll.swarm.transport import TransportError, unpack

ROOT = b"g" * 32
RULES = examples.rules(
    recipe_digest="r", self_test=b"t", genesis_root=ROOT, num_outer_steps=5, stage_ends=(20,), num_pieces=4
)
ISLANDS = "abcdr"
SPECIAL = [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e308, 1e-308]


def values(wanted: Any, meta: Any = None) -> st.SearchStrategy[Any]:
    """Values of a type that its door lets through, those at its bounds among them."""
    origin = get_origin(wanted)
    arguments = [a for a in get_args(wanted) if a is not Ellipsis]
    if origin is Annotated:
        inner, *metas = get_args(wanted)
        return values(inner, metas[-1])
    if origin in (UnionType, Union):
        return st.one_of(*map(values, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and Ellipsis in get_args(wanted):
        least = (meta.min_length if meta else 0) or 0
        return st.lists(values(arguments[0]), min_size=least, max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if wanted is int:
        least, most = (meta.ge if meta else 0) or 0, (meta.le if meta else 2**53) or 2**53
        return st.integers(0, 6) | st.sampled_from([least, most]) | st.integers(least, most)
    if wanted is float:
        return st.sampled_from([s for s in SPECIAL if meta is None or 0 <= s <= 1e12]) | st.floats(0, 1e12)
    if wanted is bytes:
        exact = meta is not None and meta.min_length
        return st.sampled_from([ROOT, b"h" * 32] if exact else [ROOT, b"h" * 32, b""])
    if wanted is str:
        return st.sampled_from([*ISLANDS, "", "x", "0" * 16])
    if wanted is Address:
        return st.just(Address("host", 1))
    if wanted in (bool, NoneType):
        return st.booleans() if wanted is bool else st.none()
    fields = {field.name: values(field.type) for field in msgspec.structs.fields(wanted)}
    return st.builds(wanted, **fields)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=400),
    st.binary(max_size=100),
    st.lists(st.none() | st.integers(-9, 9), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=3),
)


@pytest.mark.parametrize("door", FROM_PEERS, ids=lambda door: f"{door._reader} from {door._writer}")
@given(data=st.data())
def test_a_message_with_a_field_of_junk_is_refused_at_the_door(door, data) -> None:
    kind = data.draw(st.sampled_from(door.messages))
    fields = msgspec.to_builtins(data.draw(values(kind)), builtin_types=(bytes,))
    if names := [name for name in fields if name != "type"]:
        fields[data.draw(st.sampled_from(names))] = data.draw(JUNK)
    head = msgspec.msgpack.encode(fields)
    with contextlib.suppress(TransportError):
        unpack(struct.pack("<I", len(head)) + head, door)


def told(message: Message, coordinator: Coordinator) -> Message:
    """The message, of the open step and attempt where its fields can be: so that it gets further."""
    now = {"step": coordinator.head, "parent": coordinator.head_root, "root": coordinator.head_root}
    now |= {"number": coordinator.number, "attempt": coordinator.number}
    known = {name: value for name, value in now.items() if name in message.__struct_fields__}
    return msgspec.structs.replace(message, **known)


SAID = values(control.ToCoordinator)
EVENTS = st.tuples(st.sampled_from(ISLANDS), SAID, st.booleans(), st.sampled_from(["say", "leave", "wait"]))


@given(st.lists(EVENTS, max_size=15))
def test_no_message_of_a_member_ends_a_coordinator_or_makes_it_grow(said) -> None:
    coordinator, now = Coordinator(RULES, Term(1, "n"), lambda data: b"signed"), 0.0
    hello = examples.hello(recipe_digest="r", self_test=b"t", head_root=ROOT)

    def enter(island: str) -> None:
        own = msgspec.structs.replace(hello, session=island, relay=island == "r")
        coordinator.step(Joined(island, own, island.encode()), now)
        coordinator.step(Reached(island, island, (Address(island, 1),)), now)
        loaded = b"" if island == "r" else coordinator.head_root
        ready = m.Ready(coordinator.head, coordinator.head_root, loaded)
        coordinator.step(Received(island, ready), now)

    for island in ISLANDS:
        enter(island)
    for island in "abc":
        proposal = m.Propose(
            step=0,
            parent=ROOT,
            lease=coordinator.plans[island].lease,
            payload=ROOT,
            tokens=1,
            inner_steps=4,
            loss=1.0,
            norm=1.0,
        )
        coordinator.step(Received(island, proposal), now)
    for island, message, is_now, what in said:
        now += 0.5
        if what == "leave":
            coordinator.step(Left(island, island, "gone"), now)
            enter(island)
        elif what == "wait":
            now += 20.0
            coordinator.step(Tick(), now)
        else:
            message = told(message, coordinator) if is_now else message
            effects = coordinator.step(Received(island, message), now)
            assert sum(isinstance(effect, Send) for effect in effects) <= 5 * len(ISLANDS)
    assert coordinator.members.keys() == set(ISLANDS)
    assert coordinator.proposals.keys() <= set(ISLANDS)
    assert len(coordinator.standing.reasons) <= len(ISLANDS)


LAYOUT = Layout((TensorSpec("a", (3, BLOCK)),), 2 * BLOCK, BLOCK)


@pytest.fixture(scope="module")
def donor(tmp_path_factory) -> Donor:
    directory = tmp_path_factory.mktemp("donor")
    log = UpdateLog(directory / "log", LAYOUT, b"k" * 32)
    return Donor(OuterState(directory / "state", LAYOUT), log, ROOT, lambda file, block: None)


@given(request=values(peers.ToDonor))
def test_whatever_is_asked_of_a_donor_it_answers(donor, request) -> None:
    answer = donor._find(request)
    assert isinstance(answer, m.Missing) or len(answer[0]) <= 16 * BLOCK
