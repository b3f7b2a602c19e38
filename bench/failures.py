"""How soon the next commit comes, whoever fails and whenever.

    python bench/failures.py [--only coordinator-held-kill]

Plays the fault matrix of tests/worlds in the simulator, in virtual time, so the machine does not matter. One
row for each victim and fault, over all phases; an outer step is about 1 s. Where nothing goes on without the
victim, the seconds contain how long it is down (tests/worlds/case.py). Some minutes.
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from harness.report import Report, arguments

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from worlds.case import DOWN_SECONDS, NEEDED
from worlds.test_matrix import CASES


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--only", default="", help="cases whose name contains this, as in coordinator-held-kill"
    )
    options = parser.parse_args()
    report = Report("failures", options, keys=("victim", "fault"))
    seconds: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for case in CASES:
        if options.only in str(case):
            seconds[case.role, case.fault][case.phase] = case.play()
    for (role, fault), by_phase in seconds.items():
        worst = max(by_phase, key=by_phase.__getitem__)
        report.add(
            {
                "victim": role,
                "fault": fault,
                "cases": len(by_phase),
                "down_seconds": DOWN_SECONDS[fault] if role in NEEDED else None,
                "next_commit_seconds_median": round(statistics.median(by_phase.values()), 1),
                "next_commit_seconds_worst": round(by_phase[worst], 1),
                "worst_phase": worst,
            }
        )


if __name__ == "__main__":
    main()
