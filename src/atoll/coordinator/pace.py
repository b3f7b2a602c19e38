"""How long an outer step is meant to last, and how much of it fits into that time on each island.

Islands are unequal. One of them, the pacemaker, does all `outer.inner_steps` inner steps, and the others do
what they can in the time that it needs. docs/decisions/0017 says why it is this one; `bench/unequal.py`
measures it beside other rules.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

# A step is not made so short, for the sake of one fast island, that reductions take more of everybody's time.
MAX_REDUCING_SHARE = 0.1
# An island with this share of the pacemaker's speed is planned all inner steps: noise changes no plan.
FULL_PLAN_SHARE = 0.9
JITTER_SHARE = 0.025  # of a step: equal islands differ by so much
# How many times as fast as the island in the middle one may be whose beats have shown no progress.
MAX_UNSHOWN_LEAD = 2.0


def believed(paces: Sequence[tuple[float, bool]]) -> list[float]:
    """Each island's pace as far as it is believed, of (the pace that it claims, whether its beats showed it).

    An island that proposes at once may be as fast as it says, or may not have trained at all.
    """
    middle = median(claimed for claimed, _ in paces) if paces else 0.0
    return [claimed if shown else max(claimed, middle / MAX_UNSHOWN_LEAD) for claimed, shown in paces]


def step_seconds(paces: Iterable[float], inner_steps: int, reduction_seconds: float) -> float:
    """Seconds of training in an outer step; infinite where no pace is known.

    The fastest island is the pacemaker. Where that would leave more than MAX_REDUCING_SHARE of the step to
    its reduction, the step lasts longer, but no longer than the median island needs for all inner steps (of
    an even number, the slower of the two in the middle).

    `paces`: seconds per inner step of each island. `reduction_seconds`: from the last proposal to the commit.
    """
    known = sorted(paces)
    if not known:
        return math.inf
    fastest, middle = known[0], known[len(known) // 2]
    least_seconds = reduction_seconds * (1 - MAX_REDUCING_SHARE) / MAX_REDUCING_SHARE
    return max(inner_steps * fastest, min(least_seconds, inner_steps * middle))


def fair_share(pace: float, inner_steps: int, seconds: float) -> int:
    """How many of `inner_steps` inner steps, at least one, an island does in so many seconds at its pace.

    A `pace` of 0 is not known yet: all of them.
    """
    if pace * inner_steps * FULL_PLAN_SHARE <= seconds:
        return inner_steps
    return max(1, math.floor(seconds * (1 + JITTER_SHARE) / pace))
