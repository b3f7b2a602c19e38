"""Schedules that the simulator has found and shrunk: one for each fault of the protocol that it revealed."""

import pytest

from atoll.simulate import Result, Setting, run
from atoll.simulate import faults as f
from atoll.simulate import faults_of_edges as n


def is_done(result: Result) -> bool:
    return result.commits == 5 and not result.wrong


def test_owners_that_were_all_late_get_another_chance() -> None:
    """An edge was dead for 8 s; all were late, so none could own, and none was charged: it was stuck."""
    assert is_done(run(1, [n.Cut(2.0, 0, 1, 8.0)], Setting(islands=2, relays=0)))


def test_a_relay_that_was_late_gets_another_chance() -> None:
    """The relay of islands that only dial out froze for 12 s: it lost ownership, and no other could own."""
    assert is_done(run(3, [f.Freeze(2.0, 0, 12.0)], Setting(islands=3, relays=1, dial_only=3)))


def test_a_lone_island_waits_for_its_relay_to_hold() -> None:
    """Two holders are needed, but only participants were waited for: so every step took two attempts."""
    result = run(1, (), Setting(islands=1, relays=1))
    assert result.reports["attempt"] == result.commits == 5


def test_a_ready_island_that_does_not_take_part_can_own() -> None:
    """The participant only dials out, and the other island, too late for a plan, was not allowed to own."""
    assert is_done(run(1, [f.Freeze(0.01, 1, 20.0)], Setting(islands=2, relays=0, dial_only=1)))


def test_an_agent_is_tried_again_when_its_first_ping_failed() -> None:
    """The relay froze for 6 s just after its Hello, and then counted as unreachable while its line lived."""
    assert is_done(run(0, [f.Freeze(0.1, 0, 6.0)], Setting(islands=2, relays=1, dial_only=2)))


def test_a_relay_that_missed_a_commit_gets_it_from_islands_that_only_dial_out() -> None:
    """The relay was down for a moment, and nobody who has the update can be dialled."""
    assert is_done(
        run(0, [f.Crash(2.0, 0, "both", down_seconds=0.5)], Setting(islands=2, relays=1, dial_only=2))
    )


def test_the_last_update_is_left_with_the_relay() -> None:
    """Islands end once they have adopted the last state: a relay that lacked it then never got it."""
    assert is_done(run(0, (), Setting(islands=3, relays=1)))


def test_a_laggard_does_not_wait_for_updates_that_all_have_pruned() -> None:
    """With a checkpoint a step, updates of 3 steps ago are gone; chunks were fetched only after 9 steps."""
    setting = Setting(islands=3, relays=1, checkpoint_every=1, outer_steps=8)
    result = run(0, [f.Crash(3.0, 1, "both", down_seconds=6.0)], setting, tell=True)
    back = [line for line in result.story if "i000 joined" in line][-1]
    ready = [line for line in result.story if "ready: i000" in line][-1]
    assert 0 < float(ready.split()[0]) - float(back.split()[0]) < 15


def test_adopted_weights_count_only_while_the_state_stands_still() -> None:
    """A trainer copied while its agent caught up: the torn copy counted as bad memory, and it stopped."""
    faults = [f.Crash(4.1, 2, "power", down_seconds=5.0), f.Slow(9.8, 2, 2.0, 9.6)]
    assert not run(33, faults, Setting(islands=4, outer_steps=9)).wrong


@pytest.mark.parametrize("seed", range(6))
def test_an_old_leader_does_not_take_the_term_back(seed: int) -> None:
    """An island that knew the new term dialled the old leader, which then raised its own term above it."""
    faults = [f.Takeover(2.0, standby=False), n.Reset(2.5, 1, 4), n.Reset(3.0, 2, 4)]
    assert is_done(run(seed, faults, Setting(dial_only=3)))


@pytest.mark.parametrize("seed", range(6))
def test_an_old_line_that_ends_does_not_end_the_new_one(seed: int) -> None:
    """An island came back on a new line before the coordinator noticed that the old one was dead."""
    assert is_done(run(seed, [n.Reset(2.0, 1, 4, one_end=True)]))


# ------------------------------------------------------------------------------------------- restored backups
def test_a_restored_backup_waits_for_agents_that_may_know_more() -> None:
    """Only the relay, which is no participant, has the lost record; the participant comes back first."""
    faults = [f.Crash(4.0, 1, "both", down_seconds=6.0), f.Backup(6.2, 1, 0.5)]
    assert run(1, faults, Setting(islands=1, relays=1, outer_steps=5)).wrong == []


def test_a_takeover_does_not_forget_that_the_database_is_a_backup() -> None:
    faults = [
        f.Crash(4.0, 2, "both", down_seconds=0.2),
        f.Backup(5.5, 2, 0.6),
        f.Takeover(7.6, standby=False),
    ]
    assert run(1, faults, Setting(islands=2, relays=1, outer_steps=5)).wrong == []


def test_a_proposal_counts_only_for_the_samples_it_was_made_from() -> None:
    """The backup had lost a plan; the island answered a new plan with what it had made of other samples."""
    assert run(3, [f.Backup(4.5, 1, 1.0)], Setting(islands=3, relays=0, outer_steps=4)).wrong == []


def test_attempts_of_different_reigns_are_told_apart() -> None:
    """Agents that held attempt 1 before the backup took the next attempt 1 for it, and did not hold that."""
    result = run(39, [f.Backup(4.5, 1, 1.0)], Setting(islands=3, relays=0, outer_steps=4))
    assert result.worst_gap_seconds < 75, "60 s, in which a restored backup waits, and no holding deadline"
