"""How atoll looks in a terminal: short lines for what happens, a bar for what takes long."""

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table
from rich.text import Text

from atoll.status import IslandStatus, RunStatus

MEGA = 1_000_000
MAX_TOLD = 20


class Terminal:
    """Prints for people; one bar at a time."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._step = -1
        self._status = self.console.status("")
        self._phase = ("", "")

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False)

    def tell(self, text: str) -> None:
        """Something that matters."""
        self.console.print(text, markup=False)

    def preparing(self, progress: Any) -> None:
        """Show how far preparing is, in a line for each phase and source, kept up to date on a terminal."""
        p = progress
        text = f"{p.phase} of {p.source}: {p.num_documents:,} documents, {p.num_bytes / MEGA:.1f} MB"
        text += f" at {p.bytes_per_second / MEGA:.1f} MB/s" + (
            f", {duration(p.seconds_left)} left" if p.seconds_left else ""
        )
        if self.console.is_terminal:
            self._status.update(text)
            self._status.start()
        elif (p.phase, p.source) != self._phase:
            self.say(f"{p.phase} of {p.source} …")
        self._phase = (p.phase, p.source)

    def prepared(self, manifest: Any) -> None:
        self._status.stop()
        tokens = sum(source.num_tokens("train") for source in manifest.sources.values())
        heldout = sum(source.num_tokens("heldout") for source in manifest.sources.values())
        self.tell(
            f"prepared: {human(tokens)} tokens to train on, {human(heldout)} held out, "
            f"vocabulary of {manifest.vocab_size:,}"
        )
        for note in manifest.notes():
            self.tell(note)

    def track(self, seeds: range, what: str) -> Iterable[int]:
        return track(seeds, what, console=self.console, transient=True)

    def simulated(self, tally: Any) -> None:
        """What became of simulated schedules, and how to look at one that went wrong."""
        faults = ", ".join(f"{count:,} {kind}" for kind, count in tally.faults.most_common()) or "none"
        hours = tally.virtual_seconds / 3600
        self.tell(
            f"{tally.schedules:,} schedules, {tally.commits:,} commits in {hours:.2f} virtual hours; "
            f"faults: {faults}"
        )
        self.tell(
            f"invariants violated, or progress lost: {len(tally.wrong):,}; "
            f"while nothing stood in its way a commit took at most {tally.progress_bound_seconds:.1f} s"
        )
        for seed, texts in list(tally.wrong.items())[:MAX_TOLD]:
            self.tell(f"seed {seed}: {texts[0]} (its story: atoll simulate --seed {seed})")

    def joined(self, island: str, run: Any) -> None:
        self.tell(
            f"{island} joins run {run.run_id}: "
            f"{human(sum(t.num_elements for t in run.layout.tensors))} parameters"
        )

    def inner_step(self, plan: Any, number: int, metrics: Any) -> None:
        """One inner step of `plan`, for the bar."""
        if self._bar is None:
            columns = (
                TextColumn("outer step {task.fields[step]}"),
                BarColumn(24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=plan.inner_steps, step=plan.step, loss="")
        if plan.step != self._step:
            self._step = plan.step
            self._bar.reset(self._task, total=plan.inner_steps)
        loss = "no label" if metrics.loss is None else f"loss {metrics.loss:.3f}"
        self._bar.update(self._task, completed=number, step=plan.step, loss=loss)
        if number == plan.inner_steps and not self.console.is_terminal:
            self.say(f"outer step {plan.step}: {number} inner steps done, {loss}")

    def trained(self, summary: Any) -> None:
        self.close()
        self.tell(
            f"the run is finished at outer step {summary.outer_steps}; here: {summary.inner_steps} inner "
            f"steps, {human(summary.tokens)} tokens in {duration(summary.seconds)}"
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def human(count: float) -> str:
    """A count with at most four digits: 1234567 -> 1.23 M."""
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{name}"
    return f"{count:.4g}"


def duration(seconds: float) -> str:
    """Seconds in the units people read."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """A time of the day, here."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def status_table(status: RunStatus) -> Group:
    """A run's status, for people: a row for each island, who gave how much, and what happened last."""
    state = "finished" if status.finished else f"outer step {status.step} of {status.num_outer_steps}"
    committed = f"{human(status.committed_tokens)} tokens committed, root {status.root[:12]}"
    table = Table(box=None, pad_edge=False)
    for name in ("island", "contributor", "is"):
        table.add_column(name)
    for name in ("inner step", "loss", "held-out", "tokens/s", "committed"):
        table.add_column(name, justify="right")
    table.add_column("doing")
    for island in status.islands:
        table.add_row(*_island_cells(island, status.num_inner_steps))
    title = Text(f"{status.run_id}: {state}, {committed}", style="bold")
    told = [Text(f"{clock(event.time)}  {event.text}", style="dim") for event in status.events]
    return Group(title, table, *_ledger_table(status.ledger), *told)


def _island_cells(island: IslandStatus, num_inner_steps: int) -> list[str]:
    """The cells of one island's row; empty where there is nothing to tell."""
    kind = "relay" if island.relay else "island"
    working, measured = island.present and not island.relay, island.metrics
    return [
        island.island,
        island.contributor,
        kind if island.present else f"{kind}, gone",
        f"{island.inner_step}/{num_inner_steps}" if working else "",
        f"{measured.loss:.3f}" if working and measured.loss is not None else "",
        f"{measured.heldout_loss:.3f}" if working and measured.heldout_loss is not None else "",
        human(measured.tokens_per_second) if working else "",
        human(island.committed_tokens) if island.committed_tokens else "",
        island.note if island.present else "",
    ]


def _ledger_table(ledger: dict[str, dict[str, int]]) -> list[Table]:
    """Tokens by contributor and source; nothing before the first commit."""
    sources = sorted({source for row in ledger.values() for source in row})
    table = Table(box=None, pad_edge=False)
    table.add_column("committed by")
    for name in (*sources, "in all"):
        table.add_column(name, justify="right")
    rows = [*ledger.items(), ("all", {s: sum(row.get(s, 0) for row in ledger.values()) for s in sources})]
    for name, row in rows:
        table.add_row(
            name, *(human(count) if count else "" for count in (*map(row.get, sources), sum(row.values())))
        )
    return [table] if ledger else []
