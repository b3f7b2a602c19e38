"""How a run is, as its coordinator sees it: what `atoll status --json` prints, and terminals show.

docs/events.md describes every field. Roots are in hex; a step is an outer step.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from atoll.metrics import Metrics, Score
from atoll.words import Line

VERSION = 3  # of these structs: raise it with every change that a reader of before would misread


class IslandStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One island that is a member, or was one and took part in a commit."""

    island: str  # its id
    contributor: str  # who gets the credit; "": nobody was named
    place: str = ""  # where it stands, as its contributor says; "": that is not told
    link: str = ""  # a page about the contributor; "": none
    relay: bool  # it has no trainer
    present: bool  # its line to the coordinator is up, and it is heard
    ready: bool  # it holds the head, and so does its trainer
    evicted: str  # why the operator has put it out; "": it is not
    addresses: tuple[str, ...]  # where peers reach it, each as host:port; none: they cannot
    note: str  # what its agent is doing, for people
    inner_step: int  # how many of the open outer step it has done
    planned_inner_steps: int  # of how many; slower islands are planned fewer; 0: no plan in this step yet
    metrics: Metrics  # its newest
    sent_bytes: int  # to all others, since its agent started
    up_mbit: float = 0.0  # Mbit/s that its link carries, as far as its agent has seen; 0: it has not
    down_mbit: float = 0.0
    utilisation: float | None = None  # share of its time that went into inner steps; None before the first
    committed_tokens: int
    committed_tokens_by_source: dict[str, int]  # empty for a run whose data has no sources


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was not routine, for people; the events file has all of it."""

    time: float  # seconds since the epoch
    kind: str
    text: str


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What a member says that a committed state reaches."""

    time: float  # when it was told, in seconds since the epoch
    step: int  # of the state
    root: str  # of the state, in hex
    island: str  # who has measured it; "": the machine of the coordinator
    scores: dict[str, Score]  # by lm-eval's name of the task
    heldout_losses: dict[str, float]  # by source: nats per token of text that is never trained on


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment."""

    version: int = VERSION
    hosted: bool  # a coordinator has answered; else this is what the database and the events file know
    time: float  # of this moment, in seconds since the epoch; not hosted: when the last coordinator was alive
    run_id: str
    name: str  # of its recipe
    term: int  # of the coordinator that answers
    finished: bool  # every outer step is committed
    stall: str  # why the run cannot go on by itself, and what to do; "" while it can
    step: int  # the one that is open: so many are committed
    num_outer_steps: int  # of the whole run
    num_inner_steps: int  # of an outer step, for an island that is planned all of them
    num_islands: int  # that are here; before the first step of a reign, that are ready
    num_awaited: int  # islands without which the step cannot be committed, or the first one not begin
    root: str  # of the committed state that the open step begins from
    attempt: int  # number of the open step's last attempt to reduce; 0: none yet
    proposed: tuple[str, ...]  # islands that have proposed in the open step, sorted
    committed_tokens: int
    ledger: dict[str, dict[str, int]]  # committed tokens by contributor, then source
    sent_bytes: int  # by the coordinator, since it started
    islands: tuple[IslandStatus, ...]  # sorted by id
    evaluation: Evaluation | None  # the newest; None if no state was evaluated
    events: tuple[Told, ...]  # the last notable ones, oldest first
    alerts: tuple[Told, ...] = ()  # what is wrong now that a person should look at, oldest first


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment, in the few words that every member's terminal can show."""

    step: int  # as in `RunStatus`, like all but the last two
    num_outer_steps: int
    num_islands: int
    num_awaited: int
    stall: Line
    num_proposed: int  # islands that have proposed in the open step
    tokens_per_second: float  # of all islands together


def ledger(islands: Iterable[IslandStatus]) -> dict[str, dict[str, int]]:
    """Committed tokens of each contributor (an island that names none is its own), by source."""
    found: dict[str, Counter[str]] = {}
    for island in islands:
        if island.committed_tokens_by_source:
            name = island.contributor or island.island
            found.setdefault(name, Counter()).update(island.committed_tokens_by_source)
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}
