"""Schedules that the simulator found and shrank, one for each hole that it led to."""

import pytest

from atoll.simulate import Result, Setting, run
from atoll.simulate import faults as f


def is_done(result: Result) -> bool:
    return result.commits == 5 and not result.violations and not result.stalls


def test_owners_that_were_all_late_get_another_chance() -> None:
    """An edge dead for 8 s: everybody was late, so nobody could own any more, and nobody was charged: stuck
    for ever.
    """
    assert is_done(run(1, [f.Cut(3.0, 0, 1, 8.0)], Setting(islands=2, relays=0)))


def test_a_relay_that_was_late_gets_another_chance() -> None:
    """The relay froze for 12 s under islands that only dial out: it could not own any more, and nobody else
    could.
    """
    assert is_done(run(3, [f.Freeze(3.0, 0, 12.0)], Setting(islands=3, relays=1, dial_only=3)))


def test_a_lone_island_waits_for_its_relay_to_hold() -> None:
    """Two holders are wanted where two agents are ready, but only participants were waited for: two attempts
    a step.
    """
    result = run(1, (), Setting(islands=1, relays=1))
    assert result.reports["attempt"] == result.commits == 5


def test_a_ready_island_that_does_not_take_part_can_own() -> None:
    """The participant only dials out; the other island came too late for a plan. Nobody else could own: stuck
    for ever.
    """
    assert is_done(run(1, [f.Freeze(0.01, 1, 20.0)], Setting(islands=2, relays=0, dial_only=1)))


def test_an_agent_is_tried_again_when_its_first_ping_failed() -> None:
    """The relay froze for 6 s just after its Hello: it was taken for one that only dials out, as long as its
    line lived.
    """
    assert is_done(run(0, [f.Freeze(0.1, 0, 6.0)], Setting(islands=2, relays=1, dial_only=2)))


def test_a_relay_that_missed_a_commit_gets_it_from_islands_that_only_dial_out() -> None:
    """It was down for a moment. Whoever has the update cannot be dialled, so it never comes to the head
    again.
    """
    assert is_done(run(0, [f.Crash(3.0, 0, 0, 0.5)], Setting(islands=2, relays=1, dial_only=2)))


def test_the_last_update_is_left_with_the_relay() -> None:
    """Islands end as soon as they have adopted the last state: a relay or a laggard that lacks it never gets
    it.
    """
    assert run(0, (), Setting(islands=3, relays=1, outer_steps=6)).laggards == []


def test_a_laggard_does_not_wait_for_updates_that_all_have_pruned() -> None:
    """With a checkpoint each step, updates 3 steps old are gone, but chunks are fetched only when 9 steps
    behind.
    """
    result = run(
        0,
        [f.Crash(4.0, 1, 0, 6.0)],
        Setting(islands=3, relays=1, checkpoint_every=1, outer_steps=8),
        tell=True,
    )
    back = [line for line in result.story if "i000 joined" in line][-1]
    ready = [line for line in result.story if "ready: i000" in line][-1]
    assert 0 < float(ready.split()[0]) - float(back.split()[0]) < 15


def test_adopted_weights_count_only_while_the_state_stands_still() -> None:
    """A trainer copied while the agent was catching up: its torn copy was taken for bad memory, and the
    island stopped.
    """
    result = run(
        33, [f.Crash(7.087, 2, 3, 9.85, True), f.Slow(14.83, 2, 2.0, 9.6)], Setting(islands=4, outer_steps=9)
    )
    assert not result.violations


@pytest.mark.parametrize("seed", range(6))
def test_an_old_leader_does_not_take_the_term_back(seed: int) -> None:
    """An island that knew the new term greeted the old leader, which then raised its own above it."""
    result = run(
        seed, [f.Takeover(3.0, 10.0), f.Reset(4.0, 1, 99), f.Reset(5.0, 2, 99)], Setting(dial_only=4)
    )
    assert is_done(result)


@pytest.mark.parametrize("seed", range(6))
def test_an_old_line_that_ends_does_not_end_the_new_one(seed: int) -> None:
    """An island came back on a new line before the coordinator noticed that the old one was dead."""
    assert is_done(run(seed, [f.Reset(3.0, 1, 5, one_end=True)]))


# ------------------------------------------------------------------------------------------- restored backups
def test_a_restored_backup_waits_for_whoever_may_know_more() -> None:
    """The relay has the lost record, but took no part; the island died before it stored it, and is heard
    first.
    """
    faults = [f.Crash(5.0, 1, 0, 6.0), f.Backup(8.2, 1, 0.5)]
    assert run(1, faults, Setting(islands=1, relays=1, outer_steps=5)).violations == []


def test_a_takeover_does_not_forget_that_the_database_is_a_backup() -> None:
    faults = [f.Crash(5.0, 2, 0, 0.2), f.Backup(7.5, 2, 0.6), f.Takeover(10.6, 0.2)]
    assert run(1, faults, Setting(islands=2, relays=1, outer_steps=5)).violations == []


def test_a_proposal_counts_only_for_the_samples_it_was_made_from() -> None:
    """The backup forgot a plan; the island answers the new one, for other samples, with what it had made for
    the old.
    """
    assert run(3, [f.Backup(6.5, 1, 1.0)], Setting(islands=3, relays=0, outer_steps=4)).violations == []


def test_attempts_of_different_reigns_are_told_apart() -> None:
    """Attempt 1 of a step was held before the backup; another attempt 1 is never held, until its deadline of
    60 s.
    """
    result = run(39, [f.Backup(6.5, 1, 1.0)], Setting(islands=3, relays=0, outer_steps=4))
    assert result.worst_gap_seconds < 75  # of which the backup hears whoever comes for 60
