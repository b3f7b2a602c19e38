"""What `atoll evolve` says: how far it is and what it costs, then what became of the seeds."""

from pathlib import Path
from typing import Any

from atoll.terminal.figures import duration, human
from atoll.terminal.terminal import Terminal

LINES_EVERY = 100  # seeds, where there is no terminal to keep a line up to date on


class Evolving:
    """Shows progress, then the report."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def show(self, moment: Any) -> None:
        """How far evolving is (`post.evolve.Moment`)."""
        m = moment
        text = f"{m.done:,} of {m.seeds:,} seeds, {m.requests_per_second:.1f} requests/s"
        text += f", {human(m.tokens)} tokens"
        text += f", cost {m.money:,.2f}" if m.money else ""
        if m.requests and m.done < m.seeds:
            seconds_a_seed = m.requests / m.requests_per_second / m.done
            text += f", {duration((m.seeds - m.done) * seconds_a_seed)} left"
        if self._terminal.is_live:
            self._terminal.busy(text)
        elif m.done % LINES_EVERY == 0:
            self._terminal.say(text)

    def done(self, report: Any, out: Path) -> None:
        """What became of the seeds (`post.evolve.Report`)."""
        self._terminal.clear()
        r = report
        self._terminal.tell(f"{r.seeds:,} seeds: {r.written:,} conversations are in {out / 'evolved.jsonl'}")
        for reason, count in sorted(r.left_out.items(), key=lambda item: -item[1]):
            self._terminal.tell(f"  {count:,} left out: {reason}")
        if r.not_reached:
            self._terminal.tell(
                f"  {r.not_reached:,} not reached: {r.end}; the same command goes on from here"
            )
        cost = f", cost {r.money:,.2f}" if r.money else ""
        self._terminal.tell(f"{human(r.tokens_in)} tokens sent, {human(r.tokens_out)} received{cost}")
