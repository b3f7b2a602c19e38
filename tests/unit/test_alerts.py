"""Alerts begin at their thresholds, once, and are over when the reason is gone."""

import typing

import pytest

from atoll import events as e
from atoll.coordinator.alerts import FORGOTTEN_SECONDS, Alerts
from atoll.events.alert import MAX_ALERTS, OVER, TEXTS, THRESHOLDS, What
from atoll.events.log import EventLog, open_alerts
from atoll.events.step import Contribution
from atoll.metrics import Metrics

PLENTY = 1 << 40


def given(norm: float | None = 1.0) -> Contribution:
    return Contribution(tokens=8, inner_steps=4, loss=2.0, metrics=Metrics(), norm=norm)


def committed(step: int, **norms: float | None) -> e.Committed:
    islands = {island: given(norm) for island, norm in norms.items()}
    return e.Committed(step=step, tokens=8, loss=2.0, participants=islands, holders=(), root="")


def told(found: list[e.Alert]) -> list[tuple[str, str, bool]]:
    return [(alert.what, alert.island, alert.over) for alert in found]


@pytest.fixture
def alerts() -> Alerts:
    made = Alerts(lambda: PLENTY)
    for island in "abc":
        made.hear(e.Joined(island=island, contributor="", relay=False), 0.0)
        made.hear(e.Ready(island=island, trainer=True, root=""), 0.0)
    return made


def test_every_kind_has_a_threshold_and_words() -> None:
    kinds = set(typing.get_args(What))
    assert kinds == THRESHOLDS.keys() == TEXTS.keys() == OVER.keys()


def test_an_island_that_is_gone_is_told_of_after_a_minute_and_once(alerts) -> None:
    alerts.hear(e.Left(island="a", reason="its line broke"), 10.0)
    assert alerts.look(69.0) == []
    assert told(alerts.look(70.0)) == [("silent", "a", False)]
    assert alerts.look(80.0) == []
    back = alerts.hear(e.Joined(island="a", contributor="", relay=False), 90.0)
    assert told(back) == [("silent", "a", True)]


def test_a_frozen_island_too_until_it_is_heard(alerts) -> None:
    alerts.hear(e.Frozen(island="a", silent_seconds=5.0), 10.0)
    assert told(alerts.look(75.0)) == [("silent", "a", False)]
    assert told(alerts.hear(e.Thawed(island="a"), 76.0)) == [("silent", "a", True)]


def test_who_does_not_come_back_or_is_put_out_is_not_expected_for_ever(alerts) -> None:
    for island in "ab":
        alerts.hear(e.Left(island=island, reason=""), 0.0)
    assert len(alerts.look(100.0)) == 2
    assert told(alerts.forget("b")) == [("silent", "b", True)]
    assert told(alerts.look(FORGOTTEN_SECONDS + 1)) == [("silent", "a", True)]


def test_whose_work_is_left_out_again_and_again(alerts) -> None:
    alerts.hear(committed(0, a=1.0, b=1.0), 10.0)
    alerts.hear(committed(1, a=1.0, b=1.0), 20.0)
    assert told(alerts.hear(committed(2, a=1.0, b=1.0), 30.0)) == [("missed", "c", False)]
    assert told(alerts.hear(committed(3, a=1.0, b=1.0, c=1.0), 40.0)) == [("missed", "c", True)]


def test_a_step_that_takes_twice_as_long_as_usual(alerts) -> None:
    for step in range(7):
        alerts.hear(committed(step, a=1.0, b=1.0, c=1.0), 10.0 * step)
    assert alerts.look(79.0) == []
    (slow,) = alerts.look(80.0)
    assert (slow.what, slow.value, slow.threshold) == ("slow", 2.0, THRESHOLDS["slow"])
    assert told(alerts.hear(committed(7, a=1.0, b=1.0, c=1.0), 90.0)) == [("slow", "", True)]


def test_a_norm_that_is_out_of_line(alerts) -> None:
    assert alerts.hear(committed(0, a=1.0, b=1.1, c=2.9), 1.0) == []
    assert told(alerts.hear(committed(1, a=1.0, b=1.0, c=3.0), 2.0)) == [("norm", "c", False)]
    assert told(alerts.hear(committed(2, a=1.0, b=1.0, c=1.0), 3.0)) == [("norm", "c", True)]
    assert alerts.hear(committed(3, a=None, b=None, c=9.0), 4.0) == [], "of one nobody knows what is usual"


def test_figures_that_are_no_number(alerts) -> None:
    late = e.Refused(island="a", what="proposal", reason="it names samples other than the first of its lease")
    assert alerts.hear(late, 1.0) == []
    nan = e.Refused(island="a", what="proposal", reason="it names a measurement that is not finite")
    assert told(alerts.hear(nan, 1.0)) == [("nan", "a", False)]
    assert alerts.hear(nan, 2.0) == []
    assert told(alerts.hear(committed(0, a=1.0), 3.0)) == [("nan", "a", True)]


def test_a_disk_that_fills() -> None:
    free = [PLENTY]
    alerts = Alerts(lambda: free[0])
    assert alerts.look(0.0) == []
    free[0] = 5
    assert alerts.look(2.0) == [], "it is not asked every second"
    assert told(alerts.look(31.0)) == [("disk", "", False)]
    free[0] = PLENTY
    assert told(alerts.look(62.0)) == [("disk", "", True)]


def test_a_run_that_is_finished_has_no_alerts_but_of_the_disk(alerts) -> None:
    alerts.hear(e.Left(island="a", reason=""), 0.0)
    alerts.look(100.0)
    assert told(alerts.hear(e.Finished(num_outer_steps=3), 101.0)) == [("silent", "a", True)]
    alerts.hear(e.Left(island="b", reason=""), 102.0)
    assert alerts.look(500.0) == []


def test_so_many_are_kept_and_no_more() -> None:
    alerts = Alerts(lambda: PLENTY)
    for number in range(MAX_ALERTS + 5):
        alerts.hear(e.Ready(island=str(number), trainer=True, root=""), 0.0)
        alerts.hear(e.Left(island=str(number), reason=""), 0.0)
    assert len(alerts.look(100.0)) == MAX_ALERTS


def test_the_log_knows_which_are_not_over_and_a_new_coordinator_looks_anew(tmp_path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    first, second = (e.Alert(island=name, what="silent", value=61.0, threshold=60.0) for name in "ab")
    for event in (first, second, e.Alert(island="a", what="silent", over=True)):
        log.write(event)
    assert [alert.island for alert in log.alerts.values()] == ["b"]
    assert [alert.island for alert in open_alerts([first, second])] == ["a", "b"]
    assert open_alerts([first, e.ReignBegan(run_id="x", term=2)]) == []
    assert "is not heard for 61 s (alert from 60 s)" in first.text
    log.close()
