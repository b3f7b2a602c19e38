"""In what order sources take turns in a period of 1,000 samples, so that each always has its due, give or
take a window.

A source's *lead* is how many turns it took less how many it was due, in thousandths of a turn: all is done in
integers.
"""

import numpy as np

PERIOD = 1000  # samples
MOST_APART = 2 * PERIOD  # a source's leads, one period apart: what any 1,000 samples can be off by


def pattern(counts: np.ndarray, trail: np.ndarray) -> list[int]:
    """The source of each sample of a period that begins where `trail` ends.

    `counts`: [num_sources] turns in the period, PERIOD in all. `trail`: [1 to PERIOD + 1, num_sources] the
    leads before each of the samples that went before, the last row being the leads now.

    The leads stay within 1 - 1/(2n - 2) turns for n sources, as Tijdeman proved possible for the chairman
    assignment problem, when they begin at zero. After a change of stage that can be impossible, as a source
    that ended keeps what it is owed: then within the least of a few tolerances with which every 1,000 samples
    across the change still hold.
    """
    num_used = int(np.count_nonzero(counts))
    closest = PERIOD - PERIOD // max(2 * num_used - 2, 1) if num_used > 1 else PERIOD
    for tolerance in (closest, PERIOD, PERIOD * 5 // 4, PERIOD * 3 // 2, MOST_APART):
        if found := _scheduled(counts, *_bounds(counts, trail, tolerance, MOST_APART)):
            return found
    # no mixture is known that comes here: 7,000 random changes of stage among up to 8 sources found none
    unbounded = PERIOD * PERIOD
    found = _scheduled(counts, *_bounds(counts, trail, unbounded, unbounded))
    assert found is not None
    return found


def leads(counts: np.ndarray, turns: list[int], lead: np.ndarray) -> np.ndarray:
    """[len(turns) + 1, num_sources]: the leads before each of `turns` and after the last, beginning with
    `lead`.
    """
    taken = np.zeros((len(turns) + 1, len(counts)), np.int64)
    taken[np.arange(1, len(turns) + 1), turns] = PERIOD
    return lead + taken.cumsum(axis=0) - np.arange(len(turns) + 1)[:, None] * counts


def _bounds(
    counts: np.ndarray, trail: np.ndarray, tolerance: int, apart: int
) -> tuple[np.ndarray, np.ndarray]:
    """[PERIOD + 1, num_sources] each: the fewest and the most turns a source may have had, before each
    sample.
    """
    low = np.full((PERIOD + 1, len(counts)), -tolerance)
    high = -low
    low[PERIOD + 1 - len(trail) :] = np.maximum(low[PERIOD + 1 - len(trail) :], trail - apart)
    high[PERIOD + 1 - len(trail) :] = np.minimum(high[PERIOD + 1 - len(trail) :], trail + apart)
    due = np.arange(PERIOD + 1)[:, None] * counts - trail[-1]
    return -(-(due + low) // PERIOD), (due + high) // PERIOD


def _scheduled(counts: np.ndarray, fewest: np.ndarray, most: np.ndarray) -> list[int] | None:
    """An order of turns within the bounds, or None when there is none.

    A source's next turn has a first place, where `most` allows it, and a last, where `fewest` demands it. Of
    those that may, the one that must soonest is next: this finds an order whenever there is one (jobs of unit
    length).
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
    opens = [places[0] if places else PERIOD + 1 for places in first]  # of each source's next turn
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
