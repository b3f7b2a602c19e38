"""Each end of a line takes the messages of that line and direction, whatever else there is in the swarm."""

from collections import Counter
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from unit.doors import DOORS, MESSAGES, PLANES
from worlds.swarm import LAYOUT

from atoll.swarm import messages, records
from atoll.swarm.bounds import Digest
from atoll.swarm.layout import DIGEST_BYTES, Layout
from atoll.swarm.messages import trainer
from atoll.swarm.records import CommitRecord, Rewind, RunInfo, UpdateHeader
from atoll.swarm.services import SERVICES
from atoll.swarm.transport import NotUnderstood, pack, unpack
from atoll.words import Link

GIVEN: dict[Any, Any] = {bool: True, int: 7, float: 0.5, str: "x", bytes: b"x", Any: 7, Layout: LAYOUT}
GIVEN[Digest] = b"x" * DIGEST_BYTES
GIVEN[Link] = "https://x"
# Records that travel only inside a message or as its bulk, or not at all.
NEVER_ALONE = {CommitRecord, Rewind, RunInfo, UpdateHeader}


def example(wanted: Any) -> Any:
    """A value of a type, made from annotations alone: so a new message needs no line here."""
    origin, arguments = get_origin(wanted), [a for a in get_args(wanted) if a is not Ellipsis]
    if wanted in GIVEN:
        return GIVEN[wanted]
    if origin is Annotated:
        return example(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in (UnionType, Union):
        return example(arguments[0])
    if origin is tuple:
        return tuple(example(argument) for argument in arguments)
    if origin is dict:
        return {example(arguments[0]): example(arguments[1])}
    assert issubclass(wanted, msgspec.Struct), f"no example of {wanted}"
    return wanted(**{field.name: example(field.type) for field in msgspec.structs.fields(wanted)})


def test_a_value_of_every_message_can_be_made() -> None:
    assert {type(example(kind)) for kind in MESSAGES} == set(MESSAGES)
    assert len(MESSAGES) > 50


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_a_door_lets_its_messages_through_and_refuses_every_other_with_a_sentence(door) -> None:
    for kind in MESSAGES:
        message = example(kind)
        if kind in door.messages:
            assert unpack(pack(message, b"bulk"), door) == (message, b"bulk")
        else:
            with pytest.raises(NotUnderstood, match=rf" takes no such message from .*'{kind.__name__}'"):
                unpack(pack(message, b"bulk"), door)


def test_the_messages_of_a_plane_come_through_its_doors_only() -> None:
    for name, door in DOORS.items():
        plane = f"{messages.__name__}.{name.partition('.')[0]}"
        assert {kind.__module__ for kind in door.messages} <= {plane, records.__name__}


def test_every_message_comes_through_some_door() -> None:
    assert set(MESSAGES) - {kind for door in DOORS.values() for kind in door.messages} == NEVER_ALONE


def test_every_door_is_one_end_of_one_line() -> None:
    ends = [door for service in SERVICES for door in (service.server_door, service.caller_door)]
    assert Counter([*ends, trainer.AGENT_DOOR, trainer.TRAINER_DOOR]) == Counter(DOORS.values())


def test_no_two_messages_and_no_two_services_have_one_name() -> None:
    for names in ([kind.__name__ for kind in MESSAGES], [service.name for service in SERVICES]):
        assert len(names) == len(set(names))


def test_the_package_offers_every_message_of_its_planes() -> None:
    planes = {plane.__name__ for plane in PLANES}
    defined = {kind.__name__ for kind in MESSAGES if kind.__module__ in planes}
    assert defined == {name for name in messages.__all__ if isinstance(getattr(messages, name), type)}


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x80", b"\x90", b"not a message"])
@pytest.mark.parametrize("kind", sorted(NEVER_ALONE, key=str), ids=lambda kind: kind.__name__)
def test_a_record_is_read_as_the_kind_that_is_expected_or_not_at_all(kind, data) -> None:
    assert records.decode(records.encode(example(kind)), kind) == example(kind)
    for other in (data, records.encode(example(messages.Committed)), records.encode(example(records.Plan))):
        with pytest.raises(ValueError, match=f"not a {kind.__name__}: "):
            records.decode(other, kind)
