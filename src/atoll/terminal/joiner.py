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


class Joiner:
    """Hears the trainer's inner steps, and its agent's signs of life."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._news = News()
        self._situation = Situation(Kind.STARTING, "starting this island's agent")
        self._step = -1  # of the plan whose inner steps are shown
        self._began = 0.0  # when they did

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
        if plan.step != self._step:
            self._step, self._began = plan.step, time.monotonic()
        if self._terminal.is_live:
            self._terminal.show(self._bar(plan, number, metrics))
        elif number == plan.inner_steps:
            self._terminal.say(f"outer step {plan.step}: {number} inner steps done, {loss_of(metrics.loss)}")

    def trained(self, summary: Any) -> None:
        """The run is finished; what this process did (`train.Summary`)."""
        self._terminal.clear()
        self._terminal.tell(
            f"the run is finished at outer step {summary.outer_steps}; here: {summary.inner_steps} inner "
            f"steps, {human(summary.count)} {summary.counts} in {duration(summary.seconds)}"
        )
        if missing := summary.full_inner_steps - summary.inner_steps:
            self._terminal.tell(
                f"{missing} of the {summary.full_inner_steps} inner steps of these outer steps were not done "
                "here: an outer step lasts no longer than the faster islands need"
            )

    def _bar(self, plan: Any, number: int, metrics: Any) -> Group:
        """How far the plan is; below it, how far the run is."""
        left = (time.monotonic() - self._began) / number * (plan.inner_steps - number)
        row = Table.grid(padding=(0, 1))
        row.add_row(
            f"training, outer step {plan.step}",
            ProgressBar(plan.inner_steps, number, BAR_WIDTH),
            f"{number}/{plan.inner_steps}, {loss_of(metrics.loss)}, {duration(left)} left",
        )
        below = Text(visible(self._situation.text), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(row, below)
