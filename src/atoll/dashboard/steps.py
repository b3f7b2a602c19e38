"""The committed outer steps: their losses, what their time went into, and how well the swarm was used."""

from collections import deque
from statistics import median

import numpy as np

from atoll.dashboard.columns import UNKNOWN, Columns, Floats, Points, figures
from atoll.dashboard.island import Seconds
from atoll.dashboard.view import MAX_MARKS, MAX_POINTS, MAX_RECENT, Figures, Mark, Recent, Steps
from atoll.events import Committed
from atoll.words import one_line

COLUMNS = (
    "step",
    "time",
    "tokens",
    "own_tokens",
    "loss",
    "heldout",
    "participants",
    "there",
    "seconds",
    "computing",  # in the mean of its participants, as are the next two
    "exchanging",
    "sending",
    "reducing",
    "holding",
    "all_computing",  # of all participants together
    "sent_bytes",
    "parallel_bytes",
    "norm",
    "cosine",
    "norm_low",
    "norm_high",
)
BYTES_PER_GRADIENT = 4  # data-parallel training exchanges fp32 gradients
MIN_PACE_STEPS, MAX_PACE_STEPS = 3, 20  # over which the pace of a run is taken


class StepHistory:
    """Grows by a row with each commit; a rewind takes rows back."""

    def __init__(self) -> None:
        self._columns = Columns(COLUMNS)
        self._marks = deque[Mark](maxlen=MAX_MARKS)
        self.tokens = 0  # committed, as far as the events tell
        self.num_parameters: int | None = None
        self.inner_steps: int | None = None

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def newest(self) -> int:
        """The last committed step; -1: none."""
        return int(self._columns.at("step", -1)) if len(self) else -1

    @property
    def first(self) -> int | None:
        """The first step that is known of."""
        return int(self._columns.at("step", 0)) if len(self) else None

    def mark(self, time: float, kind: str, text: str) -> None:
        """Mark a moment in the curves."""
        self._marks.append(Mark(time=time, tokens=self.tokens, kind=kind, text=one_line(text)))

    def go_back(self, step: int) -> None:
        """All commits from that step on are abandoned."""
        kept = int((self._columns.column("step") < step).sum())
        self._columns.truncate(kept)
        self.tokens = int(self._columns.at("tokens", -1)) if kept else 0

    def add(self, event: Committed, began: float | None, there: int, spent: list[Seconds]) -> None:
        """A step is committed.

        `began`: when it could begin, at the commit before it or at the beginning of a reign. `there`: islands
        that could have taken part. `spent`: of each participant, since its commit before.
        """
        self.tokens += event.tokens
        given = list(event.participants.values())
        count = len(given)
        computing, exchanging = sum(s[0] for s in spent), sum(s[1] for s in spent)
        told = [each.exchange for each in given if each.exchange.sent_bytes or each.exchange.reduce_seconds]
        sending = sum(each.send_seconds for each in told) / len(told) if told else None
        norms = [each.norm for each in given if each.norm is not None]
        heldout = [each.metrics.heldout_loss for each in given if each.metrics.heldout_loss is not None]
        seconds = event.time - began if began is not None else None
        is_timed = event.reduce_seconds > 0  # a file from before these were told has zeros
        self._columns.append(
            {
                "step": event.step,
                "time": event.time,
                "tokens": self.tokens,
                "own_tokens": event.tokens,
                "loss": event.loss,
                "heldout": sum(heldout) / len(heldout) if heldout else None,
                "participants": count,
                "there": there,
                "seconds": seconds,
                "computing": computing / count if count else None,
                "exchanging": exchanging / count if count else None,
                "sending": sending,
                "reducing": event.reduce_seconds if is_timed else None,
                "holding": event.hold_seconds if is_timed else None,
                "all_computing": computing,
                "sent_bytes": sum(each.sent_bytes for each in told) if told else None,
                "parallel_bytes": self._parallel_bytes(event),
                "norm": event.norm,
                "cosine": event.cosine,
                "norm_low": min(norms, default=None),
                "norm_high": max(norms, default=None),
            }
        )

    def _parallel_bytes(self, event: Committed) -> float | None:
        """What data-parallel training would send: fp32 gradients, in a ring, at every inner step."""
        if not self.num_parameters or not self.inner_steps:
            return None
        ring = 2 * (len(event.participants) - 1) * BYTES_PER_GRADIENT * self.num_parameters
        return ring * self.inner_steps

    @property
    def last_time(self) -> float | None:
        return self._columns.at("time", -1) if len(self) else None

    @property
    def last_loss(self) -> float | None:
        return figures([self._columns.at("loss", -1)])[0] if len(self) else None

    @property
    def tokens_per_second(self) -> float | None:
        """Over the last steps."""
        count = min(len(self), MAX_PACE_STEPS)
        if count < MIN_PACE_STEPS:
            return None
        since, until = self._columns.at("time", -count), self._columns.at("time", -1)
        tokens = self._columns.at("tokens", -1) - self._columns.at("tokens", -count)
        return tokens / (until - since) if until > since else None

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps."""
        known = [s for s in self._columns.column("seconds")[-MAX_PACE_STEPS:] if s == s]
        return float(median(known)) if len(known) >= MIN_PACE_STEPS else None

    def bytes(self) -> tuple[float | None, float | None]:
        """(bytes that participants sent, how many times more data-parallel training would have sent)."""
        sent, parallel = self._columns.column("sent_bytes"), self._columns.column("parallel_bytes")
        both = ~(sent != sent) & ~(parallel != parallel)
        total = float(sent[sent == sent].sum())
        ratio = float(parallel[both].sum()) / float(sent[both].sum()) if sent[both].sum() > 0 else None
        return (total or None), (ratio or None)

    def view(self, tokens_before: int) -> Steps:
        """The curves; so many tokens were committed before the first step that is known of."""
        columns, points = self._columns, Points(len(self), MAX_POINTS)

        def last(name: str) -> Figures:
            return figures(points.last(columns.column(name)))

        def mean(name: str) -> Figures:
            return figures(points.mean(columns.column(name)))

        loss, own_tokens = columns.column("loss"), columns.column("own_tokens")
        computing, seconds, there = (columns.column(n) for n in ("computing", "seconds", "there"))
        busy = computing + columns.column("exchanging")
        whole = seconds * there
        parallel, sent = (
            points.mean(columns.column("parallel_bytes")),
            points.mean(columns.column("sent_bytes")),
        )
        return Steps(
            stride=points.stride,
            step=[int(step) for step in points.last(columns.column("step"))],
            time=last("time"),
            tokens=figures(points.last(columns.column("tokens")) + tokens_before),
            loss=figures(points.mean(loss, own_tokens)),
            low=figures(points.low(loss)),
            high=figures(points.high(loss)),
            heldout=mean("heldout"),
            participants=mean("participants"),
            there=mean("there"),
            as_original=figures(_share(points, computing, busy)),
            end_to_end=figures(_share(points, columns.column("all_computing"), whole)),
            seconds=mean("seconds"),
            saved=figures(_ratio(parallel, sent)),
            norm=mean("norm"),
            cosine=mean("cosine"),
            norm_low=figures(points.low(columns.column("norm_low"))),
            norm_high=figures(points.high(columns.column("norm_high"))),
            marks=[
                Mark(time=m.time, tokens=m.tokens + tokens_before, kind=m.kind, text=m.text)
                for m in self._marks
            ],
            recent=self._recent(),
        )

    def _recent(self) -> Recent:
        names = ("computing", "sending", "reducing", "holding", "seconds")
        computing, sending, reducing, holding, seconds = (
            self._columns.column(name)[-MAX_RECENT:] for name in names
        )
        rest = seconds - (computing + reducing + holding)
        waiting = [UNKNOWN if value != value else max(0.0, value) for value in rest]
        return Recent(
            step=[int(step) for step in self._columns.column("step")[-MAX_RECENT:]],
            computing=figures(computing),
            sending=figures(sending),
            reducing=figures(
                [max(0.0, r - s) if s == s else r for r, s in zip(reducing, sending, strict=True)]
            ),
            holding=figures(holding),
            waiting=figures(waiting),
        )


def _ratio(part: Floats, whole: Floats) -> Floats:
    """One divided by the other; not known where one is not known, or the other is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, UNKNOWN)


def _share(points: Points, part: Floats, whole: Floats) -> Floats:
    """What part of a whole, in each point: at most 1, as clocks of several machines may differ a little."""
    known = np.where(np.isnan(part) | np.isnan(whole), UNKNOWN, 1.0)
    return np.minimum(_ratio(points.mean(part * known), points.mean(whole * known)), 1.0)
