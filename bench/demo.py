"""What `atoll demo` shows: the loss it reaches, the bytes it sends, and how long a death and a return take.

    python bench/demo.py [--runs 1] [key=value ...]     # as in outer.codec=fp32

The whole of it, as a newcomer starts it, installation excluded. With several runs every figure is the range
from the lowest to the highest. A minute and a half a run on two quiet cores.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.report import Report, arguments

# Values of a row: where they stand in the demo's summary.json, and how many of their unit make one there.
FIGURES: dict[str, tuple[tuple[str, ...], float]] = {
    "seconds": (("seconds",), 1),
    "heldout_loss_before": (("heldout_loss_before",), 1),
    "heldout_loss_after": (("heldout_loss_after",), 1),
    "heldout_unigram_loss": (("heldout_unigram_loss",), 1),
    "heldout_bits_per_byte": (("heldout_bits_per_byte",), 1),
    "megabytes_sent": (("bytes_sent",), 1e6),
    "reduction_factor": (("reduction_factor",), 1),
    "survived_seconds": (("survived_seconds",), 1),
    "recovered_seconds": (("recovered_seconds",), 1),
    "rejoined_seconds": (("rejoined", "seconds"), 1),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    report = Report("demo", options, keys=("overrides",), packages=("torch",))
    summaries = [demo(options.overrides) for _ in range(options.runs)]
    figures = {name: spread(summaries, path, unit) for name, (path, unit) in FIGURES.items()}
    report.add({"overrides": " ".join(options.overrides), "runs": options.runs, **figures})


def demo(overrides: list[str]) -> dict[str, Any]:
    """The summary of one run, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
        run_dir = Path(directory) / "demo"
        command = [sys.executable, "-m", "atoll", "demo", "--dir", str(run_dir), *overrides]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"atoll demo ended with status {done.returncode}: {done.stderr[-1000:]}")
        return json.loads((run_dir / "summary.json").read_text())


def spread(summaries: list[dict[str, Any]], path: tuple[str, ...], unit: float) -> list[float] | None:
    """The lowest and the highest of a figure; None where a run has none."""
    found: list[float] = []
    for summary in summaries:
        value: Any = summary
        for key in path:
            value = value and value.get(key)
        if value is None:
            return None
        found.append(round(value / unit, 4))
    return [min(found), max(found)]


if __name__ == "__main__":
    main()
