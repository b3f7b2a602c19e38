"""Whom all have waited for: what goes on an island's account, what is forgiven, and what is too much."""

from atoll.coordinator.delays import ALLOWED_SECONDS, ALLOWED_SHARE, Delays


def delays(hands: str = "") -> Delays:
    """Those of `hands` are of one hand."""
    return Delays(lambda island: "one hand" if island in hands else island)


def test_who_is_late_beside_half_of_the_others_in_each_step_is_found() -> None:
    account = delays()
    times = {"a": 10.0, "b": 10.1, "c": 10.2, "x": 12.0}
    assert account.compare(times, 1.0) == {}
    account.note_committed(1.0)
    assert account.compare(times, 1.0).keys() == {"x"}
    assert account.compare(times, 1.0) == {}, "it begins anew with that"


def test_a_delay_that_is_small_beside_the_step_is_forgiven_for_ever() -> None:
    account = delays()
    for _ in range(100):
        assert account.compare({"a": 10.0, "b": 10.0, "x": 15.0}, 60.0) == {}
        account.note_committed(60.0)


def test_two_that_are_late_together_are_both_found() -> None:
    times = {"a": 10.0, "b": 10.0, "c": 10.0, "d": 10.0, "x": 14.0, "y": 14.0}
    assert delays().compare(times, 1.0).keys() == {"x", "y"}
    assert delays("xy").compare(times, 1.0).keys() == {"x", "y"}


def test_of_two_nobody_can_tell_who_is_slow() -> None:
    assert delays().compare({"a": 0.0, "x": 100.0}, 1.0) == {}
    assert delays("bx").compare({"a": 0.0, "b": 0.0, "x": 100.0}, 1.0) == {}


def test_islands_that_are_as_slow_as_half_of_them_delay_nobody() -> None:
    assert delays().compare({"a": 0.0, "b": 9.0, "c": 9.0, "d": 9.1}, 1.0) == {}


def test_one_long_silence_is_allowed_and_a_second_one_is_not() -> None:
    account = delays()
    assert account.note("x", 2.5, 1.0) == 0.0
    account.note_committed(1.0)
    assert account.note("x", 2.5, 1.0) > ALLOWED_SECONDS
    assert account.note("x", ALLOWED_SECONDS + ALLOWED_SHARE * 60.0, 60.0) == 0.0
