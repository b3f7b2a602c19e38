"""What `atoll demo` shows: the loss it reaches, the bytes it sends, and how long a death and a return take.

    python bench/demo.py [--runs 1] [key=value ...]     # as in outer.codec=fp32

The whole of it, as a newcomer starts it, installation excluded. With several runs every figure is the range
from the lowest to the highest. A minute and a half a run on two quiet cores.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from harness.report import Report, arguments

from atoll.demo.summary import Summary

FIGURES: dict[str, Callable[[Summary], float | None]] = {
    "seconds": lambda found: found.seconds,
    "heldout_loss_before": lambda found: found.heldout_loss_before,
    "heldout_loss_after": lambda found: found.heldout_loss_after,
    "heldout_unigram_loss": lambda found: found.heldout_unigram_loss,
    "heldout_bits_per_byte": lambda found: found.heldout_bits_per_byte,
    "megabytes_sent": lambda found: found.bytes_sent / 1e6,
    "reduction_factor": lambda found: found.reduction_factor,
    "survived_seconds": lambda found: found.survived_seconds,
    "recovered_seconds": lambda found: found.recovered_seconds,
    "rejoined_seconds": lambda found: found.rejoined and found.rejoined.seconds,
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    report = Report("demo", options, keys=("overrides",), packages=("torch",))
    summaries = [demo(options.overrides) for _ in range(options.runs)]
    figures = {name: spread([figure(found) for found in summaries]) for name, figure in FIGURES.items()}
    report.add({"overrides": " ".join(options.overrides), "runs": options.runs, **figures})


def demo(overrides: list[str]) -> Summary:
    """What one run found, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
        run_dir = Path(directory) / "demo"
        command = [sys.executable, "-m", "atoll", "demo", "--dir", str(run_dir), *overrides]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"atoll demo ended with status {done.returncode}: {done.stderr[-1000:]}")
        return msgspec.json.decode((run_dir / "summary.json").read_bytes(), type=Summary)


def spread(found: list[float | None]) -> list[float] | None:
    """The lowest and the highest of a figure; None where a run has none."""
    known = [round(value, 4) for value in found if value is not None]
    return [min(known), max(known)] if len(known) == len(found) else None


if __name__ == "__main__":
    main()
