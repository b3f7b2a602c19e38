"""What atoll would do at 14 sites with models of 1, 10 and 70 billion parameters, by `atoll simulate --plan`.

    python bench/plan.py --save

Nothing is trained or sent: the outer steps follow from the coordinator's own plan of the links and from
constants of this machine, measured first, in seconds. All sites have equal links; a round trip takes 100
ms; 100 inner steps take 38 minutes, as on INTELLECT-1, and int8 travels.

`reduce_seconds` is from the last proposal until the update is reduced. `utilisation_reduce` counts only that
as lost, as INTELLECT-1's own figures do, and `utilisation` everything but inner steps. `gb_sent_a_day` is
what an island sends, and as much comes in; `disk_gb` and `memory_gb` are an island's.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

from harness.report import Report, arguments

from atoll.simulate.plan import Case, Machine, outlook
from atoll.simulate.plan_machine import measure

PARAMETERS = {"1 B": 10**9, "10 B": 10_211_381_248, "70 B": 70 * 10**9}
MBIT = (200, 500, 1000, 2000, 4000)
NUM_SITES = 14
INNER_STEPS, TRAIN_SECONDS = 100, 38 * 60.0


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = Report("plan", options, keys=("model", "mbit"))
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
        machine = measure(Path(directory))
    for model, mbit in itertools.product(PARAMETERS, MBIT):
        report.add(row(model, mbit, machine))


def row(model: str, mbit: float, machine: Machine) -> dict[str, Any]:
    """One model on links of one rate."""
    case = Case(
        num_parameters=PARAMETERS[model],
        links=((mbit, mbit),) * NUM_SITES,
        inner_steps=INNER_STEPS,
        inner_step_seconds=TRAIN_SECONDS / INNER_STEPS,
    )
    found = outlook(case, machine)
    return {
        "model": model,
        "mbit": mbit,
        "sites": NUM_SITES,
        "encode_seconds": round(found.encode_seconds, 1),
        "reduce_seconds": round(found.reduce_seconds, 1),
        "hold_seconds": round(found.hold_seconds, 1),
        "adopt_seconds": round(found.adopt_seconds, 1),
        "utilisation_reduce": round(found.reduce_utilisation, 3),
        "utilisation": round(found.utilisation, 3),
        "gb_sent_a_day": round(found.gb_sent_a_day[0]),
        "disk_gb": round(found.disk_gb),
        "memory_gb": round(found.memory_gb),
    }


if __name__ == "__main__":
    main()
