"""The demo's live picture: where the run is, its islands, what happened last, and the keys, on one screen."""

from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from atoll.status import RunStatus
from atoll.terminal.figures import duration, human, spark
from atoll.terminal.status import doing, state_of, title
from atoll.words import visible

WIDE = 100  # columns, from which on there is room for ids and for what each island is doing
RECENT = 5  # commits whose pace tells how much time is left


@dataclass(kw_only=True)
class Picture:
    """Gathers what is to be seen; `draw` fits it into a screen."""

    keys: str = ""  # which keys do what; "" where there is no keyboard
    status: RunStatus | None = None  # the newest
    names: dict[str, str] = field(default_factory=dict[str, str])  # of islands, by id
    losses: list[float] = field(default_factory=list[float])  # of the commits so far
    committed_at: list[float] = field(default_factory=list[float])  # seconds since the epoch, as `now`
    told: list[str] = field(default_factory=list[str])  # lines, oldest first

    def draw(self, width: int, height: int, now: float) -> Group:
        """All of it in `height` - 1 lines: with one more the cursor's line would make the screen roll."""
        above = [*self._progress(width, now), Text(""), *self._islands(width), Text("")]
        num_rows = 0 if self.status is None else 1 + len(self.status.islands)
        num_told = max(1, height - 1 - len(above) - max(0, num_rows - 1) - (1 if self.keys else 0))
        told = [_line(text, "dim") for text in self.told[-num_told:]]
        return Group(*above, *told, *([_line(self.keys, "bold")] if self.keys else []))

    def _progress(self, width: int, now: float) -> list[RenderableType]:
        """Three lines: where the run is; how far, and how much time is left; the loss of each commit."""
        if self.status is None:
            return [Text("starting the coordinator", style="bold")]
        status = self.status
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(max(1, status.num_outer_steps), status.step, max(10, width - 36)),
            f"{status.step}/{status.num_outer_steps} outer steps{self._time_left(now)}",
        )
        last = f"{self.losses[-1]:.2f}" if self.losses else ""
        first = f"{self.losses[0]:.2f} " if self.losses else ""
        curve = spark(self.losses, max(10, width - 24))
        state = status.stall and f"{status.run_id} stalls: {status.stall}"
        style = "bold red" if status.stall else "bold"
        return [_line(state or title(status), style), row, _line(f"loss {first}{curve} {last}")]

    def _time_left(self, now: float) -> str:
        """By the pace of the last commits; nothing before there were two."""
        times = self.committed_at[-RECENT - 1 :]
        if len(times) < 2 or self.status is None or self.status.finished:
            return ""
        pace = (times[-1] - times[0]) / (len(times) - 1)
        left = pace * (self.status.num_outer_steps - self.status.step) - (now - times[-1])
        return f", {duration(max(left, 0.0))} left"

    def _islands(self, width: int) -> list[RenderableType]:
        """One line for each."""
        if self.status is None:
            return []
        is_wide = width >= WIDE
        table = Table(box=None, pad_edge=False, expand=True)
        ids = ("island",) if is_wide else ()
        for name in ("name", *ids, "is"):
            table.add_column(name, no_wrap=True)
        for name in ("inner step", "loss", "tokens/s", "given"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("doing", no_wrap=True, overflow="ellipsis", ratio=1)
        for island in sorted(self.status.islands, key=lambda row: self._name(row.island)):
            working, measured = island.present and not island.relay, island.metrics
            cells = [
                self._name(island.island),
                *([island.island] if is_wide else []),
                state_of(island),
                f"{island.inner_step}/{self.status.num_inner_steps}" if working else "",
                f"{measured.loss:.2f}" if working and measured.loss is not None else "",
                human(measured.tokens_per_second) if working else "",
                human(island.committed_tokens) if island.committed_tokens else "",
                doing(island),
            ]
            table.add_row(*(Text(visible(cell)) for cell in cells))
        return [table]

    def _name(self, island: str) -> str:
        return self.names.get(island, island)


def _line(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")
