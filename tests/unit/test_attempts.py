"""An attempt: whose faults are heard, and when an update is held by more than its owner."""

import pytest

import examples
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.members import Members
from atoll.swarm.records import Share, Slice

# "a" and "b" take part; "b" and the relay "r" own; "c" only holds.
RECORD = examples.attempt(
    participants=(
        Share(island="a", payload=b"", tokens=1, weight=0.5),
        Share(island="b", payload=b"", tokens=1, weight=0.5),
    ),
    slices=(Slice("b", 0, 1), Slice("r", 1, 1)),
)


@pytest.fixture
def attempt() -> OpenAttempt:
    return OpenAttempt(RECORD, {}, 0.0)


@pytest.mark.parametrize(
    ("accuser", "peer", "kind", "heard"),
    [
        ("a", "b", "unreachable", True),
        ("r", "a", "silent", True),
        ("b", "a", "refused", True),
        ("a", "c", "unreachable", False),  # no edge leads to one that only holds
        ("c", "b", "unreachable", False),
        ("c", "r", "refused", False),
        ("a", "nobody", "silent", False),
        ("a", "a", "lost", True),
        ("b", "b", "refused", True),
        ("c", "b", "failed", True),  # it got the slice of this owner from nobody
        ("c", "a", "failed", False),
        ("c", "c", "lost", False),
        ("c", "c", "failed", True),
    ],
)
def test_only_the_ends_of_an_edge_are_heard_about_each_other(attempt, accuser, peer, kind, heard) -> None:
    assert attempt.is_heard(accuser, peer, kind) == heard


@pytest.mark.parametrize(
    ("holders", "ready", "kept"),
    [
        ({"b"}, {"a", "b", "r"}, False),
        ({"b"}, {"b"}, True),  # nobody else is there
        ({"a"}, {"a", "b", "r"}, True),  # not an owner: it has the bytes from those who are
        ({"b", "r"}, {"a", "b", "r"}, True),
        (set(), {"a"}, True),
    ],
)
def test_one_owner_alone_does_not_vouch_for_its_update(attempt, holders, ready, kept) -> None:
    assert attempt.is_held_by_others(holders, ready, Members()) == kept


def test_who_cannot_hold_is_not_waited_for(attempt) -> None:
    assert attempt.awaited_holders({"a", "b", "c"}, Members()) == ["a", "b", "c"]
    attempt.note_unable("c")
    assert attempt.awaited_holders({"a", "b", "c"}, Members()) == ["a", "b"]
