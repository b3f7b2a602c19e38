"""What `atoll join` says: how far this island is, and what it waits for whenever it waits."""

import time
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from atoll.terminal.figures import duration, human, loss_of
from atoll.terminal.news import Kind, News, Situation, situation
from atoll.terminal.terminal import Terminal
from atoll.words import visible

BAR_WIDTH = 24
BURST_SECONDS = 0.1  # inner steps that are reported within so little time were read from the device together


class Pace:
    """How long an inner step takes, by the times at which steps are reported: some at once, then a pause."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of an inner step; 0: not known yet
        self._plan = -1
        self._newest = (0.0, 0)  # when, and which: the step that was reported last
        self._since: tuple[float, int] | None = None  # the last step of the plan's first burst

    def hears(self, plan: int, number: int, now: float) -> None:
        """Inner step `number` of the plan of this outer step is reported, at a time in seconds."""
        if plan != self._plan:
            self._plan, self._since = plan, None
        elif self._since is None and now - self._newest[0] > BURST_SECONDS:
            self._since = self._newest
        if self._since is not None:
            self.seconds = (now - self._since[0]) / (number - self._since[1])
        self._newest = now, number


class Joiner:
    """Hears the trainer's inner steps, and its agent's signs of life."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._news = News()
        self._situation = Situation(Kind.STARTING, "starting this island's agent")
        self._pace = Pace()
        self._num_inner_steps = 0  # done by this process
        self._num_outer_steps = 0  # of the run; not known before its coordinator is heard of

    def starts(self) -> None:
        """The agent is being started, and may take a while to speak."""
        self._terminal.busy(self._situation.text)

    def joined(self, island: str, run: Any) -> None:
        """This island is in; `run` is its `RunInfo`."""
        parameters = sum(tensor.num_elements for tensor in run.layout.tensors)
        self._terminal.say(f"{island} joins run {run.run_id}: {human(parameters)} parameters")

    def hears(self, pulse: Any, waits: bool) -> None:
        """A sign of life (`swarm.messages.Pulse`); `waits`: the trainer has nothing to do meanwhile."""
        self._situation = situation(pulse.lost, pulse.note, pulse.overview)
        if pulse.overview is not None:
            self._num_outer_steps = pulse.overview.num_outer_steps
        line, is_shown = self._news.hear(self._situation), waits and self._terminal.is_live
        if line and not (is_shown and self._situation.kind is Kind.STARTING):
            self._terminal.say(line)
        if waits:
            text = self._situation.text
            if self._situation.kind is Kind.WORKING and pulse.note:
                text += f"; {pulse.note}"
            self._terminal.busy(text)

    def inner_step(self, plan: Any, number: int, metrics: Any) -> None:
        """Inner step `number` of `plan` is done."""
        self._pace.hears(plan.step, number, time.monotonic())
        self._num_inner_steps += 1
        if self._terminal.is_live:
            self._terminal.show(self._bar(plan, number, metrics))
        elif number == plan.inner_steps:
            self._terminal.say(f"outer step {plan.step}: {number} inner steps done, {loss_of(metrics.loss)}")

    def left(self, committed: str) -> None:
        """This process ends before the run does; `committed`: what the run has of this island."""
        self._terminal.clear()
        steps = (
            "1 inner step was" if self._num_inner_steps == 1 else f"{self._num_inner_steps} inner steps were"
        )
        self._terminal.tell(f"left; {steps} done here; {committed}")

    def trained(self, summary: Any) -> None:
        """The run is finished; what this process did (`train.Summary`)."""
        self._terminal.clear()
        # The last update may have come too late for the trainer, which is told of the end all the same.
        last = self._num_outer_steps or summary.outer_steps
        self._terminal.tell(
            f"the run is finished at outer step {last}; here: {summary.inner_steps} inner "
            f"steps, {human(summary.count)} {summary.counts} in {duration(summary.seconds)}"
        )
        if missing := summary.full_inner_steps - summary.inner_steps:
            self._terminal.tell(
                f"{missing} of the {summary.full_inner_steps} inner steps of these outer steps were not done "
                "here: an outer step lasts no longer than the faster islands need"
            )

    def _bar(self, plan: Any, number: int, metrics: Any) -> Group:
        """How far the plan is; below it, how far the run is."""
        left = self._pace.seconds * (plan.inner_steps - number)
        row = Table.grid(padding=(0, 1))
        row.add_row(
            f"training, outer step {plan.step}",
            ProgressBar(plan.inner_steps, number, BAR_WIDTH),
            f"{number}/{plan.inner_steps}, {loss_of(metrics.loss)}"
            + (f", {duration(left)} left" if left else ""),
        )
        below = Text(visible(self._situation.text), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(row, below)
