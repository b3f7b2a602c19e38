"""The order in which sources take turns in a period of 1,000 samples, so that each stays close to its weight.

A source's *lead* is the number of turns it has taken minus the number it was due, in thousandths of a turn.
So all arithmetic is in integers.
"""

import numpy as np

PERIOD = 1000  # samples
# The bound on the difference of a source's leads one period apart, which is how far off its weight any 1,000
# samples are: 2 turns.
MAX_DIFFERENCE = 2 * PERIOD


def pattern(counts: np.ndarray, trail: np.ndarray) -> list[int]:
    """The source of each of the PERIOD samples of a period that begins where `trail` ends.

    `counts` [num_sources]: turns of each source in the period, PERIOD in all. `trail`
    [1 to PERIOD + 1, num_sources]: the leads before each of the last samples; its last row holds the leads
    now.

    When the leads begin at zero, they stay within 1 - 1/(2n - 2) turns for n sources, which Tijdeman proved
    possible (the chairman assignment problem). After a change of stage this can be impossible, because the
    turns that a source is still owed remain when it ends. Then they stay within the least of a few tolerances
    for which any 1,000 samples across the change are within MAX_DIFFERENCE.
    """
    num_used = int(np.count_nonzero(counts))
    closest = PERIOD - PERIOD // max(2 * num_used - 2, 1) if num_used > 1 else PERIOD
    for tolerance in (closest, PERIOD, PERIOD * 5 // 4, PERIOD * 3 // 2, MAX_DIFFERENCE):
        if order := _schedule(counts, *_bounds(counts, trail, tolerance, MAX_DIFFERENCE)):
            return order
    # No mixture is known that gets here: 7,000 random changes of stage among up to 8 sources found none.
    unbounded = PERIOD * PERIOD
    order = _schedule(counts, *_bounds(counts, trail, unbounded, unbounded))
    assert order is not None
    return order


def leads(counts: np.ndarray, turns: list[int], lead: np.ndarray) -> np.ndarray:
    """[len(turns) + 1, num_sources]: the leads before each turn and after the last; the first is `lead`."""
    taken = np.zeros((len(turns) + 1, len(counts)), np.int64)
    taken[np.arange(1, len(turns) + 1), turns] = PERIOD
    return lead + taken.cumsum(axis=0) - np.arange(len(turns) + 1)[:, None] * counts


def _bounds(
    counts: np.ndarray, trail: np.ndarray, tolerance: int, max_difference: int
) -> tuple[np.ndarray, np.ndarray]:
    """The fewest and the most turns that each source may have had before each sample of the period.

    Each is [PERIOD + 1, num_sources]. Leads stay within `tolerance` of zero, and within `max_difference` of
    what they were one period earlier, as far as `trail` goes back.
    """
    low = np.full((PERIOD + 1, len(counts)), -tolerance)
    high = -low
    low[PERIOD + 1 - len(trail) :] = np.maximum(low[PERIOD + 1 - len(trail) :], trail - max_difference)
    high[PERIOD + 1 - len(trail) :] = np.minimum(high[PERIOD + 1 - len(trail) :], trail + max_difference)
    due = np.arange(PERIOD + 1)[:, None] * counts - trail[-1]
    return -(-(due + low) // PERIOD), (due + high) // PERIOD


def _schedule(counts: np.ndarray, fewest: np.ndarray, most: np.ndarray) -> list[int] | None:
    """An order of turns within the bounds, or None when there is none.

    Each turn of a source has a first place, from which on `most` allows it, and a last one, by which `fewest`
    demands it. At each place the turn with the earliest last place is taken, of those allowed there. Earliest
    deadline first finds an order whenever there is one, since all turns take one place.
    """
    allowed = np.minimum.accumulate(most[::-1])[::-1]
    demanded = np.maximum.accumulate(fewest)
    first = [
        np.searchsorted(allowed[:, j], np.arange(1, count + 1)).tolist() for j, count in enumerate(counts)
    ]
    last = [
        np.searchsorted(demanded[:, j], np.arange(1, count + 1)).tolist() for j, count in enumerate(counts)
    ]
    turns = [0] * len(counts)
    # The first and the last place of each source's next turn; beyond the period where it has no turn left.
    opens = [places[0] if places else PERIOD + 1 for places in first]
    closes = [places[0] if places else PERIOD + 1 for places in last]
    order: list[int] = []
    for place in range(1, PERIOD + 1):
        chosen = -1
        for j, opening in enumerate(opens):
            if opening <= place and (chosen < 0 or closes[j] < closes[chosen]):
                chosen = j
        if chosen < 0 or closes[chosen] < place:
            return None
        order.append(chosen)
        turns[chosen] += 1
        done = turns[chosen] == counts[chosen]
        opens[chosen] = PERIOD + 1 if done else first[chosen][turns[chosen]]
        closes[chosen] = PERIOD + 1 if done else last[chosen][turns[chosen]]
    return order
