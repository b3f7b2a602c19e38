"""What `atoll evaluate` shows: how far it is, a table of scores, and curves over tokens."""

from typing import Any

from rich.table import Table
from rich.text import Text

from atoll.terminal.figures import duration, human
from atoll.terminal.terminal import Terminal
from atoll.words import visible

HEIGHT, WIDTH = 9, 60  # characters of a curve


class Scores:
    """Shows progress, and what came of it."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._tenth = ("", -1)  # of which task that much was told

    def report(self, progress: Any) -> None:
        """How far a task is (`evaluate.progress.Progress`); without a live terminal, each tenth of it."""
        p = progress
        left = "" if p.seconds_left is None else f", at most {duration(p.seconds_left)} left"
        text = f"{p.task}: {p.num_done:,} of {p.num_requests:,} requests{left}"
        tenth = p.task, 10 * p.num_done // p.num_requests
        if self._terminal.is_live:
            self._terminal.busy(text)
        elif tenth != self._tenth:
            self._terminal.say(text)
        self._tenth = tenth

    def table(self, table: Any) -> None:
        """A table (`evaluate.table.Table`), and its notes."""
        self._terminal.clear()
        shown = Table(box=None, pad_edge=False)
        for number, name in enumerate(table.header):
            shown.add_column(Text(visible(name)), justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*(Text(visible(cell)) for cell in row))
        self._terminal.console.print(shown)
        for note in table.notes:
            self._terminal.say(note)

    def curve(self, curve: Any) -> None:
        """A curve (`evaluate.curve.Curve`): a point for each checkpoint, a line where guessing would be."""
        values = [point.value for point in curve.points]
        bounds = [*values, *([] if curve.chance is None else [curve.chance])]
        low, high = min(bounds), max(bounds)
        lines = [[" "] * WIDTH for _ in range(HEIGHT)]
        if curve.chance is not None:
            lines[_row(curve.chance, low, high)] = ["·"] * WIDTH
        first, last = curve.points[0].tokens, curve.points[-1].tokens
        for point in curve.points:
            column = round((WIDTH - 1) * (point.tokens - first) / (last - first))
            lines[_row(point.value, low, high)][column] = "●"
        labels = [f"{high:.2f}", *[""] * (HEIGHT - 2), f"{low:.2f}"]
        self._terminal.tell(f"\n{curve.title}" + ("" if curve.chance is None else ", dots: chance"))
        for label, line in zip(labels, lines, strict=True):
            self._terminal.tell(f"{label:>9} │{''.join(line)}")
        ends = f"{human(first)} tokens", human(last)
        self._terminal.tell(f"{'':>9} └{ends[0]}{ends[1]:>{WIDTH - len(ends[0])}}")


def _row(value: float, low: float, high: float) -> int:
    """The line of a value, from the top; in the middle where all values are equal."""
    return round((HEIGHT - 1) * (high - value) / (high - low)) if high > low else HEIGHT // 2
