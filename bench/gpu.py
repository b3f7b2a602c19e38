"""Everything that needs an accelerator, in one call of at most nine minutes on one H100 or H200.

    python bench/gpu.py --save
    python bench/gpu.py --tiny     # a rehearsal with tiny shapes, also on a CPU; its figures mean nothing

In the order of their worth: a training step of four models at windows of 8,192 tokens beside `transformers`,
plain and packed; the same compiled, with the number of graph breaks; in float8; what handing a proposal over
costs; a joiner's copy of the adopted state. Each row runs in a process of its own, so that its peak of memory
is its own and its failure nobody else's, and is printed as soon as it is done. What cannot be measured says
why. A machine without an accelerator rehearses.

Model FLOPs utilisation (`mfu`) is 6 N a token, and attention between the tokens that see each other, over the
device's dense bf16 peak; what is computed twice does not count. `mfu_whole_window` counts attention over the
whole window, as published figures often do.
"""

from itertools import product
from typing import Any

from harness.accelerator import SHAPES, device_name, measure
from harness.children import in_child, one_by_one
from harness.report import Report, arguments

BUDGET_SECONDS = 540.0
LOOK_SECONDS = 120.0  # for the first process, which may have to read all libraries from a cold disk
KEYS = ("row", "model", "side", "packed", "compiled", "float8")


def rows() -> list[dict[str, Any]]:
    """What tells each row from the others, the most valuable first."""
    steps: list[dict[str, Any]] = [
        {"model": model, "side": side, "packed": packed}
        for model, packed, side in product(SHAPES, (False, True), ("atoll", "transformers"))
    ]
    steps += [
        {"model": "1b", "side": "atoll", "packed": False, "compiled": True},
        {"model": "1b", "side": "atoll", "packed": True, "compiled": True},
        {"model": "1b", "side": "atoll", "packed": False, "compiled": True, "float8": True},
    ]
    return [
        *({"row": "training step", **step} for step in steps),
        {"row": "hand-over", "model": "1b"},
        {"row": "adopt", "model": "1b"},
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tiny", action="store_true", help="rehearse: tiny shapes, no time for any of them")
    parser.add_argument("--budget-seconds", type=float, default=BUDGET_SECONDS, help="for all rows together")
    options = parser.parse_args()
    if options.tiny and options.save:
        parser.error("--tiny is a rehearsal: its figures mean nothing and are not saved")
    found = in_child(device_name, (), LOOK_SECONDS)
    if "name" not in found:
        raise SystemExit(f"no device can be used here: {found}")
    tiny = options.tiny or not found["name"]
    if tiny and options.save:
        raise SystemExit("there is no accelerator here, so nothing to save; leave --save out to rehearse")
    packages = ("torch", "transformers", "torchao")
    report = Report("gpu", options, keys=KEYS, packages=packages, accelerator=found["name"])
    wanted = rows()
    calls = [(what, tiny) for what in wanted]
    for what, figures in zip(wanted, one_by_one(measure, calls, options.budget_seconds), strict=True):
        report.add(what | ({"tiny": True} if tiny else {}) | figures)


if __name__ == "__main__":
    main()
