"""What is measured of a run: of an island's training and its link, and of the states that it leads to."""

import math
from typing import Annotated

import msgspec
from msgspec import Meta


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest figures of one island. A figure is None where the island has not measured it.

    The trainer measures; its agent adds what the seconds went into, and sends all of it to the coordinator,
    which shows it in the run's status and writes it into the events file with every commit.
    """

    loss: float | None = None  # of the newest inner step: mean, as the objective says; of tokens in nats
    heldout_loss: float | None = None  # the same on what is held out, at this island's newest look at it
    tokens_per_second: float = 0.0  # trained on, over the inner steps that were reported last
    gradient_norm: float | None = None  # of the newest inner step, before clipping
    learning_rate: float | None = None  # of the newest inner step
    margin: float | None = (
        None  # of the newest inner step: mean reward of the chosen answers minus the rejected
    )
    accuracy: float | None = None  # of the newest inner step: share of the pairs whose margin is above 0
    divergence: float | None = None  # of the newest inner step: mean KL from the teacher per token, in nats
    # What the time since the agent started went into; the agent fills these in, the trainer leaves them 0.
    compute_seconds: float = 0.0  # in the inner steps of all proposals
    communicate_seconds: float = 0.0  # encoding and reducing
    wait_seconds: float = 0.0  # for others, between proposals and their commits

    @property
    def utilisation(self) -> float | None:
        """The share of the agent's time that went into inner steps; None before there was any."""
        total = self.compute_seconds + self.communicate_seconds + self.wait_seconds
        return self.compute_seconds / total if total > 0 else None

    @property
    def is_finite(self) -> bool:
        """Whether no figure is NaN or infinite."""
        figures = msgspec.structs.astuple(self)
        return all(figure is None or math.isfinite(figure) for figure in figures)


Bytes = Annotated[int, Meta(ge=0, le=2**53)]  # exact as a float too


class Exchange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one attempt took of an island, up to the update that it holds. Its agent measures."""

    send_seconds: float = 0.0  # from the attempt's arrival until its payload had left
    own_seconds: float = 0.0  # from the attempt's arrival until its own slices were reduced; 0: it has none
    give_seconds: float = 0.0  # from the attempt's arrival until all that it reduced had left; 0: nothing
    reduce_seconds: float = 0.0  # from the attempt's arrival until all that comes of reducing was there
    disk_seconds: float = 0.0  # computing the next table, and writing it and the update to disk
    sent_bytes: Bytes = 0  # from the attempt's arrival until then, by all that its agent does
    received_bytes: Bytes = 0
    beat_seconds: float = 0.0  # the longest that the answer to a heartbeat took meanwhile; 0: none came
    norm: Annotated[float, Meta(ge=0, le=1e150)] | None = None  # of the update that it holds
    # Of that update to the outer momentum that it meets; None where one of them is zero.
    cosine: Annotated[float, Meta(ge=-1, le=1)] | None = None


Rate = Annotated[float, Meta(ge=0, le=1e12)]  # bytes per second


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent's link carries, as far as the agent has seen; 0: it has not."""

    up_bytes_per_second: Rate = 0.0
    down_bytes_per_second: Rate = 0.0

    @property
    def slower(self) -> float:
        """Bytes per second of the slower direction; 0 if one is not known, or is no number."""
        least = min(self.up_bytes_per_second, self.down_bytes_per_second)
        return least if least > 0 and self.up_bytes_per_second > 0 else 0.0


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a state reached on one task."""

    value: float  # a share of 1 for accuracies
    standard_error: float | None = None  # None where it is not known

    @property
    def is_finite(self) -> bool:
        """Whether no figure is NaN or infinite."""
        return math.isfinite(self.value) and math.isfinite(self.standard_error or 0.0)


def scores_text(scores: dict[str, Score], heldout_losses: dict[str, float]) -> str:
    """Scores by task and held-out losses by source, as people read them; "" for none."""
    parts = [
        f"{task} {score.value:.4f}"
        + ("" if score.standard_error is None else f" ± {score.standard_error:.4f}")
        for task, score in sorted(scores.items())
    ]
    parts += [f"held-out {source} {loss:.3f}" for source, loss in sorted(heldout_losses.items())]
    return ", ".join(parts)
