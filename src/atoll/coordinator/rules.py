"""What a run fixes for its coordinator."""

import msgspec

from atoll.recipe import Recipe


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the recipe and the prepared run say; the durations at the end are the same in every run."""

    recipe_digest: str
    self_test: bytes  # digest of what every member's kernels must make of a fixed input
    genesis_root: bytes
    num_outer_steps: int
    inner_steps: int
    windows_per_step: int
    context_length: int
    stage_ends: tuple[int, ...]  # inner step at which each stage of the mixture ends
    codec: str
    lr: float
    momentum: float
    min_participants: int
    clip_norm_ratio: float = 3.0  # of a pseudo-gradient to what is usual; beyond it is clipped
    max_norm_ratio: float = 10.0  # of a pseudo-gradient to what is usual; beyond it is refused
    num_awaited: int = 1  # islands that must be ready at once before the first step of a reign begins
    num_pieces: int
    payload_bytes: int = 0  # of an encoded payload, at most; 0: not known, and nothing is planned by links
    partitioned: tuple[str, ...] = ()  # the private sources, sorted
    private_shares: tuple[dict[str, float], ...] = ()  # per stage: private source -> share of its samples
    # An agent beats every second. A step does not wait for one that was silent for so long.
    frozen_seconds: float = 2.5
    # A new leader waits for the islands of the open step to come back; they dial once a second.
    grace_seconds: float = 3.0
    # An old backup decides nothing for so long: an island that knows more may just have been cut off.
    doubt_seconds: float = 60.0
    # Between a fault and the next attempt: the news that an agent died may be on its way.
    fault_seconds: float = 0.1
    # An owner whose slice has not advanced for so long is late. There is no limit on a whole reduction.
    stall_seconds: float = 30.0
    # Who has not received a piece of an assembled update for so long is not waited for.
    progress_seconds: float = 10.0
    hold_seconds: float = 60.0  # to hold an update, until it was seen how long that takes
    last_seconds: float = 30.0  # to store the last update, before members are told that the run is finished
    stuck_seconds: float = 1.0  # between two searches for an owner
    forgive_seconds: float = 2.0  # after faults have excluded everybody, until all take part again

    @staticmethod
    def of(
        recipe: Recipe, self_test: bytes, genesis_root: bytes, num_pieces: int, payload_bytes: int = 0
    ) -> "Rules":
        """The rules of a run of `recipe` whose state 0 has this root and so many pieces."""
        outer, objective = recipe.outer, recipe.objective
        return Rules(
            recipe_digest=recipe.digest(),
            self_test=self_test,
            genesis_root=genesis_root,
            num_outer_steps=recipe.num_outer_steps,
            inner_steps=outer.inner_steps,
            windows_per_step=recipe.windows_per_step,
            context_length=recipe.inner.context_length,
            stage_ends=tuple(stage.until for stage in recipe.stage),
            codec=outer.codec,
            lr=objective.outer_lr,
            momentum=objective.outer_momentum,
            min_participants=outer.min_participants,
            clip_norm_ratio=outer.clip_norm_ratio,
            max_norm_ratio=outer.max_norm_ratio,
            num_pieces=num_pieces,
            payload_bytes=payload_bytes,
            partitioned=tuple(recipe.partitioned),
            private_shares=tuple(recipe.private_shares(stage) for stage in range(len(recipe.stage))),
        )
