"""The facts of a demo: what its `summary.json` holds. docs/events.md describes every field."""

import msgspec


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What all lives of all islands and relays sent and took."""

    sent_bytes: int  # the coordinator's as well
    compute_seconds: float
    communicate_seconds: float
    wait_seconds: float


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When the swarm noticed a death, or a return."""

    island: str  # its name in the demo
    outer_step: int
    seconds: float  # from the death, or the new start, until then


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in a demo, and what came out. Losses are in nats per token."""

    heldout_loss_before: float  # of state 0
    heldout_loss_after: float  # of the exported model
    heldout_unigram_loss: float  # of guessing tokens by their frequency
    heldout_bits_per_byte: float  # of the exported model
    heldout_curve: tuple[tuple[int, float], ...]  # (outer step, held-out loss), as one island saw it
    outer_steps: int  # committed
    tokens: int  # committed
    islands: dict[str, int]  # committed tokens by island
    killed: Moment | None  # how its death was noticed; None: it was not
    rejoined: Moment | None  # its first commit after its return; None: there was none
    survived_seconds: float | None  # from the death to the first commit without it
    recovered_seconds: float | None  # from its new start until it was at the head again
    roots_equal: bool  # every agent and trainer held the committed bits at every step
    parameters: int  # of the model
    bytes_sent: int  # by everybody
    reduction_factor: float | None  # how much more data-parallel training would have sent
    compute_seconds: float  # of all islands together, as are the next two
    communicate_seconds: float
    wait_seconds: float
    ledger: dict[str, dict[str, int]]  # committed tokens by contributor, then source
    logits_difference: float  # the largest between our logits and those of `transformers`
    sample: str  # text that `transformers` generated from the export
    export_dir: str
    seconds: float  # that all of it took
