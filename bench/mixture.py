"""How exactly sources take turns, beside a loader that draws them at random.

    python bench/mixture.py

The reference run's two stages and five sources, each large enough not to run out. `worst_aligned`: windows
that a source has more or less than its weight says, over the aligned thousands of a stage; `worst_sliding`:
over any thousand samples, also across the change of stage, the worst of 200 places where it may come;
`repeats`: windows seen again before their source was read through. Half a minute.
"""

import time

import numpy as np
from harness.report import Report, arguments

from atoll.data.mixture import PERIOD, Mixture

STAGES = [
    {"fineweb-edu": 55, "fineweb": 10, "stack": 20, "dclm": 10, "open-web-math": 5},
    {"fineweb-edu": 80, "fineweb": 10, "stack": 10, "dclm": 0, "open-web-math": 0},
]
NAMES = list(STAGES[0])
NUM_WINDOWS = 30_000
STARTS = range(20_000, 20_200)
SECOND_STAGE = 3 * PERIOD


def main() -> None:
    report = Report("mixture", arguments(__doc__).parse_args(), keys=())
    mixture = Mixture(STAGES, dict.fromkeys(NAMES, NUM_WINDOWS), seed=0)
    random = np.random.default_rng(0)
    ours, drawn = [], []
    for start in STARTS:
        lengths = [start, SECOND_STAGE]
        due = np.repeat(
            np.array([[stage[name] / 100 for name in NAMES] for stage in STAGES]), lengths, axis=0
        )
        samples = [mixture.sample(index, [0, start]) for index in range(start - 2 * PERIOD, sum(lengths))]
        ours.append(
            deviations(
                np.array([NAMES.index(sample.source) for sample in samples]), due[start - 2 * PERIOD :], start
            )
        )
        picks = np.concatenate(
            [random.choice(5, size, p=due[at]) for size, at in zip(lengths, (0, start), strict=True)]
        )
        drawn.append(deviations(picks[start - 2 * PERIOD :], due[start - 2 * PERIOD :], start))
    seen = [mixture.sample(index, [0, STARTS[0]])[:2] for index in range(STARTS[0] + SECOND_STAGE)]
    windows = np.stack([random.choice(5, len(seen)), random.integers(0, NUM_WINDOWS, len(seen))])
    began = time.perf_counter()
    for index in range(20_000):
        mixture.sample(10**12 + index, [0, STARTS[0]])
    report.add(
        {
            "worst_aligned": round(float(max(aligned for aligned, _ in ours)), 3),
            "worst_sliding": round(float(max(sliding for _, sliding in ours)), 3),
            "repeats": len(seen) - len(set(seen)),
            "random_worst_aligned": round(float(max(aligned for aligned, _ in drawn)), 3),
            "random_worst_sliding": round(float(max(sliding for _, sliding in drawn)), 3),
            "random_repeats": len(seen) - len(set(map(tuple, windows.T))),
            "microseconds_at_10_to_the_12": round((time.perf_counter() - began) / 20_000 * 1e6, 1),
        }
    )


def deviations(picks: np.ndarray, due: np.ndarray, start: int) -> tuple[float, float]:
    """(worst aligned, worst sliding), in windows; the first pick is sample `start` - 2 PERIOD, due
    [num_picks, 5].
    """
    off = np.concatenate([np.zeros((1, 5)), np.cumsum(np.eye(5)[picks] - due, axis=0)])
    sliding = np.abs(off[PERIOD:] - off[:-PERIOD]).max()
    change = 2 * PERIOD
    # The first stage's thousands count from sample 0.
    before = np.arange(change - start % PERIOD, -1, -PERIOD)
    after = np.arange(change, len(off), PERIOD)
    return max(np.abs(np.diff(off[edges], axis=0)).max() for edges in (before, after)), sliding


if __name__ == "__main__":
    main()
