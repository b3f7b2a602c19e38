"""What an agent's signs of life say to people: where the run is, and what has changed since the last one."""

from enum import Enum
from typing import NamedTuple

from atoll.status import Overview
from atoll.terminal.figures import human
from atoll.words import one_line

MAX_REASON_LENGTH = 90


class Kind(Enum):
    """Where a run is, as one of its members sees it."""

    STARTING = "starting"  # there is no line to the coordinator yet
    LOST = "lost"  # there is none any more
    STALLED = "stalled"
    AWAITING = "awaiting"  # there are too few islands
    WORKING = "working"
    FINISHED = "finished"


class Situation(NamedTuple):
    """Where a run is, as a kind and as a sentence."""

    kind: Kind
    text: str


def situation(lost: str, note: str, overview: Overview | None) -> Situation:
    """Where the run is, by the newest sign of life (`swarm.messages.Pulse`): the first thing that matters."""
    if lost and overview is None:
        asked = note if note != lost else "dialling the coordinator"
        return Situation(Kind.STARTING, f"{asked}: no answer yet, trying again ({short(lost)})")
    if lost:
        return Situation(Kind.LOST, f"coordinator lost, trying again ({short(lost)})")
    if overview is None:
        return Situation(Kind.STARTING, note)
    o = overview
    if o.step >= o.num_outer_steps:
        return Situation(Kind.FINISHED, f"all {o.num_outer_steps} outer steps are committed")
    if o.stall:
        return Situation(Kind.STALLED, f"step {o.step} of {o.num_outer_steps} stalls: {o.stall}")
    if o.num_islands < o.num_awaited:
        here = f"{o.num_islands} of {o.num_awaited} are here"
        return Situation(Kind.AWAITING, f"step {o.step} of {o.num_outer_steps}, waiting for islands: {here}")
    return Situation(Kind.WORKING, working(o))


def short(reason: str) -> str:
    """The beginning of a reason, which says what matters: the libraries below us explain at length."""
    return one_line(reason, MAX_REASON_LENGTH)


def working(overview: Overview) -> str:
    """How far a run is, and how fast: `step 15 of 300, 3 islands, swarm 41 k tokens/s`."""
    o = overview
    islands = "1 island" if o.num_islands == 1 else f"{o.num_islands} islands"
    return f"step {o.step} of {o.num_outer_steps}, {islands}, swarm {human(o.tokens_per_second)} tokens/s"


class News:
    """Lines for what has changed: the line to the coordinator, a stall, who is missing, the end."""

    def __init__(self) -> None:
        self._last = Situation(Kind.WORKING, "")

    def hear(self, new: Situation) -> str:
        """A line for the newest situation; "" if there is nothing to tell."""
        last, self._last = self._last, new
        if new.kind is Kind.WORKING:
            again = {Kind.LOST: "linked to the coordinator again", Kind.STALLED: "the run goes on"}
            return f"{again[last.kind]}: {new.text}" if last.kind in again else ""
        has_changed = new.kind is not last.kind or new.text.partition(" (")[0] != last.text.partition(" (")[0]
        return new.text if has_changed else ""  # a reason in brackets may be another at each try
