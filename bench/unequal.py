"""What an outer step of unequal islands should last: rules for the pacemaker, beside one another.

    python bench/unequal.py

Plays swarms in virtual time with the coordinator that ships (`atoll.simulate`), each under several rules of
who sets the pace. An outer step has 20 inner steps; some islands need many times as long for one as others.
The machine does not matter. About two minutes.

One row for each swarm, length of a reduction and rule:

- `speed`: committed samples a second, over what the islands would do without ever waiting or reducing.
- `reducing_share`: of the time, what passes between the attempt's opening and its commit.
- `traffic`: updates that travel, for each million samples that are committed; of the rule "fastest" it is 1.
- `least_inner_steps`: what the slowest island does of an outer step, in the median.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from harness.report import Report, arguments

from atoll.coordinator import pace
from atoll.simulate import Setting, World
from atoll.swarm.records import Attempt, CommitRecord

INNER_STEPS, OUTER_STEPS, IGNORED_STEPS = 20, 40, 5
Rule = Callable[[Iterable[float], int, float], float]

# Seconds per inner step of each island, in units of the row's `unit_seconds`.
SWARMS: dict[str, list[float]] = {
    "four equal": [1.0, 1.0, 1.0, 1.0],
    "three, and one 15 times as fast": [15.0, 15.0, 15.0, 1.0],
    "ten, and one 15 times as fast": [*[15.0] * 10, 1.0],
    "three, and one 4 times as slow": [1.0, 1.0, 1.0, 4.0],
    "spread evenly over 1 to 8": [2 ** (k / 2) for k in range(7)],
}
UNIT_SECONDS = (2.0, 0.2, 0.02)  # a reduction takes about a second here


def best_rate(paces: Iterable[float], inner_steps: int, reduction_seconds: float) -> float:
    """What gives most samples a second, if nobody does more than `inner_steps`."""
    known = list(paces)

    def rate(seconds: float) -> float:
        done = sum(min(inner_steps, seconds / each) for each in known)
        return done / (seconds + reduction_seconds)

    return max((inner_steps * each for each in known), key=rate, default=float("inf"))


def of_rank(share: float) -> Rule:
    """The island that so large a share of the islands is faster than."""

    def rule(paces: Iterable[float], inner_steps: int, reduction_seconds: float) -> float:
        known = sorted(paces)
        return inner_steps * known[round(share * (len(known) - 1))] if known else float("inf")

    return rule


def median_by_samples(paces: Iterable[float], inner_steps: int, reduction_seconds: float) -> float:
    """The island in the middle, where each counts by its speed."""
    known = sorted(paces)
    half, reached = sum(1 / each for each in known) / 2, 0.0
    for each in known:
        reached += 1 / each
        if reached >= half:
            return inner_steps * each
    return float("inf")


RULES: dict[str, Rule] = {
    "fastest": of_rank(0.0),
    "median by samples": median_by_samples,
    "median": of_rank(0.49),
    "slowest": of_rank(1.0),
    "most samples a second": best_rate,
    "atoll": pace.step_seconds,
}


class Watched(World):
    """A world that notes when attempts are opened and committed."""

    def __init__(self, paces: Sequence[float]) -> None:
        self.opened_at, self.commits = 0.0, list[tuple[float, float, CommitRecord]]()
        setting = Setting(
            islands=len(paces), outer_steps=OUTER_STEPS, inner_steps=INNER_STEPS, step_seconds=1.0
        )
        super().__init__(0, setting)
        for island, seconds in zip(self.islands, paces, strict=True):
            island.step_seconds = seconds

    def _is_lost(self) -> bool:
        return False  # nothing strikes here, however long a step takes

    def persisted(self, host, records) -> None:
        super().persisted(host, records)
        for record in records:
            if isinstance(record, Attempt):
                self.opened_at = self.loop.now
            elif isinstance(record, CommitRecord):
                self.commits.append((self.opened_at, self.loop.now, record))


def play(paces: Sequence[float], rule: Rule) -> dict[str, float]:
    """The figures of one swarm under one rule."""
    shipped = pace.step_seconds
    pace.step_seconds = rule
    try:
        world = Watched(paces)
        result = world.play()
    finally:
        pace.step_seconds = shipped
    assert result.commits == OUTER_STEPS and not result.wrong, result
    measured = world.commits[IGNORED_STEPS:]
    seconds = measured[-1][1] - world.commits[IGNORED_STEPS - 1][1]
    done = [{share.island: share.tokens for share in record.participants} for _, _, record in measured]
    tokens = sum(sum(step.values()) for step in done)
    per_inner_step = world.rules.windows_per_step * world.rules.context_length
    slowest = world.islands[max(range(len(paces)), key=lambda number: paces[number])].name
    reducing = sum(committed - opened for opened, committed, _ in measured)
    steps = statistics.mean(b[1] - a[1] for a, b in pairwise(measured))
    return {
        "speed": round(tokens / per_inner_step / seconds / sum(1 / each for each in paces), 3),
        "reducing_share": round(reducing / seconds, 3),
        "step_seconds": round(steps, 2),
        "updates_per_sample": len(measured) / tokens,
        "least_inner_steps": statistics.median(step.get(slowest, 0) / per_inner_step for step in done),
    }


def main() -> None:
    report = Report("unequal", arguments(__doc__).parse_args(), keys=("swarm", "unit_seconds", "rule"))
    for swarm, units in SWARMS.items():
        for unit_seconds in UNIT_SECONDS:
            rows = {name: play([u * unit_seconds for u in units], rule) for name, rule in RULES.items()}
            of_fastest = rows["fastest"]["updates_per_sample"]
            for name, row in rows.items():
                row["traffic"] = round(row.pop("updates_per_sample") / of_fastest, 2)
                report.add({"swarm": swarm, "unit_seconds": unit_seconds, "rule": name, **row})


if __name__ == "__main__":
    main()
