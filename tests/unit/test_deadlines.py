"""Deadlines: learned from the median of past durations and their spread, with a floor."""

import math

from atoll.coordinator.deadlines import FLOOR_SECONDS, FLOOR_SHARE, NUM_REMEMBERED, Deadline, K


def limit_after(*seen: float, initial: float = math.inf) -> float:
    """The deadline, in seconds, once these durations were observed."""
    deadline = Deadline(initial)
    for seconds in seen:
        deadline.observe(seconds)
    return deadline.limit_seconds()


def test_the_initial_deadline_holds_until_something_was_seen() -> None:
    assert limit_after(initial=7.0) == 7.0
    assert limit_after() == math.inf
    assert limit_after(1.0, initial=700.0) < 700.0


def test_after_equal_durations_the_margin_is_the_floor() -> None:
    assert limit_after(10.0, 10.0, 10.0) == 10.0 + FLOOR_SECONDS


def test_after_long_durations_the_margin_is_a_share_of_them() -> None:
    assert limit_after(1000.0, 1000.0) == 1000.0 * (1 + FLOOR_SHARE)


def test_durations_that_scatter_give_a_margin_of_k_times_their_median_deviation() -> None:
    assert limit_after(90.0, 100.0, 110.0) == 100.0 + K * 10.0


def test_one_straggler_hardly_moves_the_deadline() -> None:
    assert limit_after(*[10.0] * 9, 10_000.0) == limit_after(*[10.0] * 10)


def test_the_deadline_follows_a_swarm_that_becomes_slower() -> None:
    slower = [30.0] * (NUM_REMEMBERED // 2 + 1)
    assert limit_after(*[10.0] * NUM_REMEMBERED, *slower) >= 30.0 + FLOOR_SECONDS


def test_only_the_last_durations_are_remembered() -> None:
    assert limit_after(*[1000.0] * 500, *[10.0] * NUM_REMEMBERED) == limit_after(10.0)
