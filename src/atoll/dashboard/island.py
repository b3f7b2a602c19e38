"""One island as the events tell of it: whether it is alive, takes part and has committed, and why."""

import math
from array import array

from atoll.dashboard.atlas import Place, projected
from atoll.dashboard.columns import UNKNOWN, Columns, Points, figures
from atoll.dashboard.timeline import Timeline
from atoll.dashboard.view import MAX_HISTORY, MAX_ISLAND_LINES, History, IslandRow
from atoll.events.step import Contribution
from atoll.publish.places import located
from atoll.status import IslandStatus
from atoll.terminal.names import Names
from atoll.words import MAX_LINK_LENGTH, MAX_NAME_LENGTH, one_line

MAX_PLACE_LENGTH = 120  # characters
MAX_KEPT = 2 * MAX_HISTORY  # rows of its history, from which on every second one is forgotten
COLUMNS = ("step", "time", "loss", "tokens", "computing", "exchanging", "waiting", "norm")
Seconds = tuple[float, float, float]  # computing, exchanging, waiting; since its agent started


class Island:
    """What is known of one island so far."""

    def __init__(self, island: str, names: Names) -> None:
        self.island = one_line(island, MAX_NAME_LENGTH)
        self.contributor = ""
        self.place = ""
        self._at: Place | None = None
        self.link = ""
        self.relay = False
        self.connected = False
        self.frozen = False
        self.evicted = False
        self.why = "enrolled, and has not dialled in yet"
        self.since: float | None = None
        self.num_joins = 0
        self.ready_step = -1
        self.tokens = 0  # committed
        self.num_commits = 0
        self.last_commit = -1
        self.loss: float | None = None
        self.heldout_loss: float | None = None
        self.norm: float | None = None
        self._seconds: Seconds = (0.0, 0.0, 0.0)
        self._history = Columns(COLUMNS)
        self._every = 1  # commits to a row of the history
        self._gave_steps = array("q")  # all it took part in: a run may go back to a state before them
        self._gave_tokens = array("q")
        self.timeline = Timeline(names, MAX_ISLAND_LINES)

    @property
    def alive(self) -> bool:
        """Whether its line is up, and it is heard."""
        return self.connected and not self.frozen

    def stands(self, place: str) -> None:
        """It is there, as its contributor says; where that is, is never looked up on a network."""
        place = one_line(place, MAX_PLACE_LENGTH)
        if place and place != self.place:
            found = located(place)
            self.place, self._at = place, projected(*found) if found else None

    def links(self, link: str) -> None:
        """Its contributor gives this page. It is shown as text, and nobody is led there."""
        self.link = one_line(link, MAX_LINK_LENGTH) or self.link

    def joined(self, time: float, contributor: str, relay: bool) -> None:
        self.contributor, self.relay = one_line(contributor, MAX_NAME_LENGTH), relay
        self.connected, self.frozen, self.evicted = True, False, False
        self.num_joins += 1
        self.ready_step = -1
        self.change(time, "its line is up" if self.num_joins == 1 else "its line is up again")

    def gone(self, time: float, why: str) -> None:
        self.connected = False
        self.change(time, why)

    def change(self, time: float, why: str) -> None:
        """It is alive, or is not, for this reason, since then."""
        self.since, self.why = time, one_line(why)

    def committed(self, step: int, time: float, given: Contribution) -> Seconds:
        """Its work is in the update of a step; return the seconds that it took of it since the one before.

        Seconds count from its agent's start, so where they have become fewer it has started anew.
        """
        metrics = given.metrics
        now = (metrics.compute_seconds, metrics.communicate_seconds, metrics.wait_seconds)
        before = self._seconds
        is_same_life = now[0] >= before[0] and now[1] >= before[1]
        spent = (
            (now[0] - before[0], now[1] - before[1], max(0.0, now[2] - before[2])) if is_same_life else now
        )
        self._gave_steps.append(step)  # first, as an absurd one is refused before anything is changed
        self._gave_tokens.append(given.tokens)
        self._seconds = now
        self.tokens += given.tokens
        self.num_commits += 1
        self.last_commit = step
        self.loss, self.heldout_loss = given.loss, metrics.heldout_loss or self.heldout_loss
        self.norm = given.norm
        if self.num_commits % self._every == 0:
            self._remember(step, time, spent)
        return spent

    def _remember(self, step: int, time: float, spent: Seconds) -> None:
        computing, exchanging, waiting = spent
        self._history.append(
            {
                "step": step,
                "time": time,
                "loss": self.loss,
                "tokens": self.tokens,
                "computing": computing,
                "exchanging": exchanging,
                "waiting": waiting,
                "norm": self.norm,
            }
        )
        if len(self._history) >= MAX_KEPT:
            self._history.thin()
            self._every *= 2

    def go_back(self, step: int) -> None:
        """What it gave from that step on is abandoned."""
        while self._gave_steps and self._gave_steps[-1] >= step:
            self._gave_steps.pop()
            self.tokens -= self._gave_tokens.pop()
            self.num_commits -= 1
        self.last_commit = self._gave_steps[-1] if self._gave_steps else -1
        kept = sum(1 for number in self._history.column("step") if number < step)
        self._history.truncate(kept)

    def row(
        self,
        *,
        name: str,
        newest: int,
        taking: tuple[bool | None, str],
        now: IslandStatus | None,
        is_past: bool,
    ) -> IslandRow:
        """It as a page shows it.

        `newest`: the last committed step. `taking`: whether it takes part in the open one, and why. `now`:
        what its coordinator says of it; None: nobody can be asked. `is_past`: the events may have ended.
        """
        is_unknown = is_past and self.alive
        here = now is not None and now.present
        metrics = now.metrics if now is not None and here else None
        return IslandRow(
            island=self.island,
            name=one_line(name, MAX_NAME_LENGTH),
            contributor=self.contributor,
            place=self.place,
            at=self._at,
            link=self.link,
            relay=self.relay,
            alive=None if is_unknown else self.alive,
            alive_why="its line was up when these events ended" if is_unknown else self.why,
            since=self.since,
            taking_part=taking[0],
            taking_part_why=taking[1],
            committed=self.last_commit >= 0 and self.last_commit == newest,
            committed_why=self._committed_why(newest),
            tokens=self.tokens,
            num_commits=self.num_commits,
            num_joins=self.num_joins,
            inner_step=now.inner_step if now is not None and here and now.planned_inner_steps else None,
            planned=(now.planned_inner_steps or None) if now is not None and here else None,
            tokens_per_second=(metrics.tokens_per_second or None) if metrics else None,
            loss=metrics.loss if metrics and metrics.loss is not None else self.loss,
            heldout_loss=self.heldout_loss,
            utilisation=now.utilisation if now is not None and here else self._utilisation(),
            norm=self.norm,
            up_mbit=(now.up_mbit or None) if now is not None and here else None,
            down_mbit=(now.down_mbit or None) if now is not None and here else None,
            addresses=list(now.addresses) if now is not None and here else [],
            note=one_line(now.note) if now is not None and here else "",
        )

    def _committed_why(self, newest: int) -> str:
        if self.relay:
            return "a relay has no trainer"
        if self.last_commit < 0:
            return "nothing of it is committed yet"
        if self.last_commit == newest:
            return f"its work is in the newest update, of step {newest}"
        return f"its last work that counts is in step {self.last_commit}"

    def _utilisation(self) -> float | None:
        total = sum(self._seconds)
        return self._seconds[0] / total if total > 0 else None

    def history(self) -> History:
        """Its curves and its timeline."""
        points = Points(len(self._history), MAX_HISTORY)

        def last(name: str) -> list[float | None]:
            return figures(points.last(self._history.column(name)))

        def mean(name: str) -> list[float | None]:
            return figures(points.mean(self._history.column(name)))

        return History(
            island=self.island,
            step=[int(step) for step in points.last(self._history.column("step"))],
            time=last("time"),
            loss=mean("loss"),
            tokens=last("tokens"),
            computing=mean("computing"),
            exchanging=mean("exchanging"),
            waiting=mean("waiting"),
            norm=mean("norm"),
            lines=self.timeline.lines(),
        )


def known(value: float | None) -> float:
    """A figure for arithmetic: NaN where it is not known."""
    return UNKNOWN if value is None or not math.isfinite(value) else value
