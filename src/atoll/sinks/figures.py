"""Events become figures. What nobody has measured is no figure, and never 0."""

from typing import NamedTuple

from atoll.events import (
    AttemptClosed,
    Committed,
    Enrolled,
    Evaluated,
    Event,
    Evicted,
    Finished,
    Frozen,
    Joined,
    Left,
    ReignBegan,
    Resumed,
    Rewound,
    Stalled,
    Thawed,
)
from atoll.events.step import Contribution
from atoll.words import visible

# By name: what people are told of it. Names of islands' figures begin with island_.
FIGURES = {
    "committed_steps": "outer steps that are committed",
    "committed_tokens": "tokens of all commits",
    "loss": "mean over the tokens of the newest commit, in nats",
    "participants": "islands in the newest commit",
    "holders": "islands that held its update",
    "reduce_seconds": "from the opening of its attempt until all slices were reduced",
    "hold_seconds": "from then until enough held the update",
    "update_norm": "of the newest update, as the median of its holders says",
    "update_cosine": "of that update to the outer momentum that it met",
    "step_seconds": "between the newest two commits",
    "islands": "islands that are here, relays aside",
    "failed_attempts": "attempts to reduce that have failed",
    "losses_of_islands": "times that the line of an island has ended",
    "stalled": "1 while the run cannot go on by itself",
    "finished": "1 once the last outer step is committed",
    "term": "of the coordinator",
    "score": "of the newest state that was evaluated, by task",
    "heldout_loss": "of that state, by source, in nats per token",
    "island_present": "1 while its line is up and it is heard",
    "island_committed_tokens": "of all commits",
    "island_loss": "mean over its inner steps of the newest commit, in nats",
    "island_heldout_loss": "at its newest look, in nats",
    "island_tokens_per_second": "trained on",
    "island_gradient_norm": "of its newest inner step, before clipping",
    "island_learning_rate": "of its newest inner step",
    "island_utilisation": "share of its agent's time that went into inner steps",
    "island_norm": "of its pseudo-gradient",
    "island_inner_steps": "that it did for the newest commit",
    "island_sent_bytes": "in the newest attempt",
    "island_received_bytes": "in the newest attempt",
}


class Figure(NamedTuple):
    """One figure, with what tells it from others of its name."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Figures:
    """Hears a run's events, from its first, and knows how it stands."""

    def __init__(self) -> None:
        self.committed_steps = 0
        self.run_id = ""
        self.known: dict[tuple[str, tuple[tuple[str, str], ...]], Figure] = {}
        self._tokens: list[dict[str, int]] = []  # of each commit, by island
        self._committed_at = 0.0
        self._contributors: dict[str, str] = {}
        self._present: set[str] = set()
        self._num_failed = self._num_lost = 0

    def hear(self, event: Event) -> list[Figure]:
        """The figures that an event has changed."""
        changed = self._changed(event)
        for figure in changed:
            self.known[figure.name, figure.labels] = figure
        return changed

    def _changed(self, event: Event) -> list[Figure]:
        match event:
            case ReignBegan():
                self.run_id = event.run_id
                gone = [self._is_present(island, False) for island in sorted(self._present)]
                self._present.clear()
                return [*gone, Figure("term", event.term), self._islands()]
            case Enrolled():
                self._contributors[event.island] = visible(event.contributor)
                return []
            case Joined():
                self._contributors[event.island] = visible(event.contributor)
                return [] if event.relay else self._presence(event.island, True)
            case Left() | Frozen() | Evicted():
                return self._absence(event)
            case Thawed():
                return self._presence(event.island, True)
            case AttemptClosed():
                self._num_failed += 1
                return [Figure("failed_attempts", self._num_failed)]
            case Stalled() | Resumed():
                return [Figure("stalled", float(isinstance(event, Stalled)))]
            case Rewound():
                del self._tokens[event.step :]
                return self._totals()
            case Committed():
                return self._committed(event)
            case Evaluated():
                scores = [Figure("score", s.value, (("task", t),)) for t, s in event.scores.items()]
                losses = event.heldout_losses.items()
                return scores + [Figure("heldout_loss", x, (("source", source),)) for source, x in losses]
            case Finished():
                return [Figure("finished", 1.0)]
            case _:
                return []

    def _committed(self, event: Committed) -> list[Figure]:
        del self._tokens[event.step :]
        self._tokens += [{} for _ in range(event.step - len(self._tokens))]  # of files that are not here
        self._tokens.append({island: given.tokens for island, given in event.participants.items()})
        figures = [
            *self._totals(),
            Figure("participants", len(event.participants)),
            Figure("holders", len(event.holders)),
            Figure("reduce_seconds", event.reduce_seconds),
            Figure("hold_seconds", event.hold_seconds),
        ]
        told = {"loss": event.loss, "update_norm": event.norm, "update_cosine": event.cosine}
        figures += [Figure(name, value) for name, value in told.items() if value is not None]
        if self._committed_at:
            figures.append(Figure("step_seconds", event.time - self._committed_at))
        self._committed_at = event.time
        for island, given in sorted(event.participants.items()):
            figures += self._contribution(island, given)
        return figures

    def _contribution(self, island: str, given: Contribution) -> list[Figure]:
        measured, labels = given.metrics, self._labels(island)
        values = {
            "loss": given.loss,
            "heldout_loss": measured.heldout_loss,
            "tokens_per_second": measured.tokens_per_second or None,
            "gradient_norm": measured.gradient_norm,
            "learning_rate": measured.learning_rate,
            "utilisation": measured.utilisation,
            "norm": given.norm,
            "inner_steps": given.inner_steps,
            "sent_bytes": given.exchange.sent_bytes or None,
            "received_bytes": given.exchange.received_bytes or None,
            "committed_tokens": sum(tokens.get(island, 0) for tokens in self._tokens),
        }
        return [Figure(f"island_{name}", v, labels) for name, v in values.items() if v is not None]

    def _totals(self) -> list[Figure]:
        self.committed_steps = len(self._tokens)
        tokens = sum(sum(each.values()) for each in self._tokens)
        return [Figure("committed_steps", self.committed_steps), Figure("committed_tokens", tokens)]

    def _absence(self, event: Left | Frozen | Evicted) -> list[Figure]:
        if event.island not in self._present:
            return []
        lost = [Figure("losses_of_islands", self._num_lost + 1)] if isinstance(event, Left) else []
        self._num_lost += len(lost)
        return [*lost, *self._presence(event.island, False)]

    def _presence(self, island: str, is_present: bool) -> list[Figure]:
        (self._present.add if is_present else self._present.discard)(island)
        return [self._is_present(island, is_present), self._islands()]

    def _is_present(self, island: str, is_present: bool) -> Figure:
        return Figure("island_present", float(is_present), self._labels(island))

    def _islands(self) -> Figure:
        return Figure("islands", len(self._present))

    def _labels(self, island: str) -> tuple[tuple[str, str], ...]:
        return ("island", island), ("contributor", self._contributors.get(island, ""))
