"""Alerts: what a person should look at, as an event when it begins and another when it is over.

This is their one definition: the thresholds below, which `coordinator/alerts.py` holds the run against. The
page, `atoll status` and the log all show what the coordinator wrote.
"""

from typing import Literal

from atoll.events.base import Occurrence

What = Literal["silent", "missed", "slow", "norm", "nan", "disk"]
# From which value on there is an alert.
THRESHOLDS: dict[What, float] = {
    "silent": 60.0,  # seconds in which an island that was at work is not heard
    "missed": 3,  # outer steps in a row that are committed without an island that is here
    "slow": 2.0,  # times as long as usual that the open outer step takes
    "norm": 3.0,  # times the norm of a contribution in the median of its step
    "nan": 1,  # proposals of an island with figures that are no number
    "disk": float(1 << 30),  # bytes that are free on the coordinator's disk: here fewer are worse
}
TEXTS: dict[What, str] = {
    "silent": "{island} was at work, and is not heard for {value:.0f} s (alert from {threshold:.0f} s)",
    "missed": "{island} is here, and {value:.0f} outer steps in a row were committed without it "
    "(alert from {threshold:.0f})",
    "slow": "step {step} takes {value:.1f} times as long as usual (alert from {threshold:g} times)",
    "norm": "{island} contributes a norm of {value:.1f} times the median of its step "
    "(alert from {threshold:g} times)",
    "nan": "{island} has proposed figures that are no number or infinite; they do not count",
    "disk": "the coordinator's disk has {value:,.0f} bytes left (alert below {threshold:,.0f})",
}
OVER: dict[What, str] = {
    "silent": "{island} is heard again, or not expected any more",
    "missed": "{island} takes part again, or is gone",
    "slow": "step {step} is as fast as usual again, or committed",
    "norm": "{island} contributes a norm like the others again",
    "nan": "{island} proposes numbers again, or is gone",
    "disk": "the coordinator's disk has room again",
}
MAX_ALERTS = 100  # that are kept at once; more say no more


class Alert(Occurrence, frozen=True, kw_only=True):
    """Something is wrong that a person should look at; or, where it is `over`, is not any more."""

    what: What
    over: bool = False
    value: float = 0.0  # when it began
    threshold: float = 0.0

    @property
    def text(self) -> str:
        if self.over:
            return f"over: {OVER[self.what].format(island=self.island, step=self.step)}"
        return "alert: " + TEXTS[self.what].format(
            island=self.island, step=self.step, value=self.value, threshold=self.threshold
        )
