"""Deadlines: learned from the median and its spread, never below a floor."""

import math

from atoll.coordinator.deadlines import FLOOR_SECONDS, FLOOR_SHARE, MEMORY, Deadline, K


def after(*seen: float, initial: float = math.inf) -> float:
    deadline = Deadline(initial)
    for seconds in seen:
        deadline.observe(seconds)
    return deadline.seconds()


def test_the_initial_deadline_holds_until_something_was_seen() -> None:
    assert after(initial=7.0) == 7.0
    assert after() == math.inf
    assert after(1.0, initial=700.0) < 700.0


def test_equal_durations_leave_the_floor_above_them() -> None:
    assert after(10.0, 10.0, 10.0) == 10.0 + FLOOR_SECONDS


def test_long_durations_leave_a_share_of_themselves() -> None:
    assert after(1000.0, 1000.0) == 1000.0 * (1 + FLOOR_SHARE)


def test_durations_that_scatter_leave_k_times_their_median_deviation() -> None:
    assert after(90.0, 100.0, 110.0) == 100.0 + K * 10.0


def test_one_straggler_hardly_moves_the_deadline() -> None:
    assert after(*[10.0] * 9, 10_000.0) == after(*[10.0] * 10)


def test_late_arrivals_teach_a_slower_swarm_in_time() -> None:
    assert after(*[10.0] * MEMORY, *[30.0] * (MEMORY // 2 + 1)) >= 30.0 + FLOOR_SECONDS


def test_only_the_last_durations_are_remembered() -> None:
    assert after(*[1000.0] * 500, *[10.0] * MEMORY) == after(10.0)
