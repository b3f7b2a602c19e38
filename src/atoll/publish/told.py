"""What the events file tells of a run: losses, how well its machines were used, and what it survived."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from atoll.events import (
    AttemptClosed,
    Committed,
    Event,
    Frozen,
    Joined,
    Left,
    Recovered,
    ReignBegan,
    Rewound,
    Stalled,
    Unequal,
)
from atoll.publish.facts import Loss, Told, Utilisation
from atoll.swarm.records import CommitRecord

# What each kind of event is in the card's table of faults.
FAULTS: dict[type[Any], str] = {
    Left: "members that went away",
    Frozen: "members that fell silent",
    Recovered: "members that came, or came back, in the middle of the run",
    AttemptClosed: "attempts to reduce that failed and were made again",
    Stalled: "stalls",
    ReignBegan: "coordinators that took over, or started again",
    Rewound: "rewinds to an earlier state",
    Unequal: "states whose bits differed, and were mended",
}


def told(events: Sequence[Event], records: Sequence[CommitRecord]) -> Told | None:
    """What the events tell of the steps of these records; None where they tell of none of them."""
    roots = {record.step: record.next_root.hex() for record in records}
    commits = {
        event.step: (number, event)
        for number, event in enumerate(events)
        if isinstance(event, Committed) and roots.get(event.step) == event.root
    }
    if not commits:
        return None
    last, _ = commits[max(commits)]
    until = events[: last + 1]  # what came later is not part of the state
    in_order = [commits[step][1] for step in sorted(commits)]
    return Told(
        num_steps=len(commits),
        began=in_order[0].time,
        ended=in_order[-1].time,
        losses=_losses(in_order, records),
        heldout_loss=_heldout_loss(in_order),
        utilisation=_utilisation(until, in_order),
        faults=_faults(until),
    )


def _losses(commits: Sequence[Committed], records: Sequence[CommitRecord]) -> tuple[Loss, ...]:
    tokens, total = dict[int, int](), 0
    for record in records:
        total += record.tokens
        tokens[record.step] = total
    return tuple(Loss(tokens[each.step], each.loss) for each in commits if each.loss is not None)


def _heldout_loss(commits: Sequence[Committed]) -> float | None:
    """The last that anybody has measured: one island looks, and it may not be in the last commits."""
    for commit in reversed(commits):
        for _, given in sorted(commit.participants.items()):
            if given.metrics.heldout_loss is not None:
                return given.metrics.heldout_loss
    return None


def _faults(events: Sequence[Event]) -> dict[str, int]:
    found = Counter[type[Any]](type(event) for event in events)
    found[ReignBegan] -= 1  # the first one began the run
    return {text: found[kind] for kind, text in FAULTS.items() if found[kind] > 0}


def _utilisation(events: Sequence[Event], commits: Sequence[Committed]) -> Utilisation:
    computing, exchanging = _seconds(commits)
    members, joined, shares = set[str](), dict[str, float](), list[float]()
    ended = dict[str, float]()
    counted = {id(commit) for commit in commits}
    for event in events:
        match event:
            case Joined() if not event.relay:
                members.add(event.island)
                joined.setdefault(event.island, event.time)
            case Left():
                members.discard(event.island)
            case ReignBegan():
                members.clear()  # they dial in anew
            case Committed() if id(event) in counted:
                there = members | event.participants.keys()
                shares.append(len(event.participants) / len(there))
                ended |= dict.fromkeys(event.participants, event.time)
            case _:
                pass
    seconds = sum(ended[island] - joined[island] for island in ended if island in joined)
    return Utilisation(
        as_original=_share(computing, computing + exchanging),
        participation=sum(shares) / len(shares),
        end_to_end=_share(computing, seconds),
    )


def _share(part: float, whole: float) -> float | None:
    return min(part / whole, 1.0) if whole > 0 else None


def _seconds(commits: Sequence[Committed]) -> tuple[float, float]:
    """(seconds that all islands computed, that they exchanged). Each counts from its agent's last start."""
    before = defaultdict[str, tuple[float, float]](lambda: (0.0, 0.0))
    totals = [0.0, 0.0]
    for commit in commits:
        for island, given in commit.participants.items():
            now = (given.metrics.compute_seconds, given.metrics.communicate_seconds)
            is_same_life = now >= before[island] and now[1] >= before[island][1]
            for number in (0, 1):
                totals[number] += now[number] - (before[island][number] if is_same_life else 0.0)
            before[island] = now
    return totals[0], totals[1]
