"""What became of simulated schedules."""

from typing import Any

from atoll.terminal.terminal import Terminal

MAX_TOLD = 20


def tell_tally(tally: Any, terminal: Terminal) -> None:
    """The tally (`simulate.Tally`), and how to look at a schedule that went wrong."""
    faults = ", ".join(f"{count:,} {kind}" for kind, count in tally.faults.most_common()) or "none"
    hours = tally.virtual_seconds / 3600
    terminal.tell(
        f"{tally.schedules:,} schedules, {tally.commits:,} commits in {hours:.2f} virtual hours; "
        f"faults: {faults}"
    )
    terminal.tell(
        f"invariants violated, or progress lost: {len(tally.wrong):,}; "
        f"while nothing stood in its way a commit took at most {tally.progress_bound_seconds:.1f} s"
    )
    for seed, texts in list(tally.wrong.items())[:MAX_TOLD]:
        terminal.tell(f"seed {seed}: {texts[0]} (its story: atoll simulate --seed {seed})")
