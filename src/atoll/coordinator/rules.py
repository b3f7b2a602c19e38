"""What a run fixes for its coordinator."""

import msgspec

from atoll.recipe import Recipe


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """From the recipe and the prepared run; the seconds at the end are floors and backstops, not settings."""

    recipe_digest: str
    self_test: bytes  # what the kernels of every member must make of a fixed input
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
    num_pieces: int
    partitioned: tuple[str, ...] = ()  # the private sources, sorted
    private_shares: tuple[dict[str, float], ...] = ()  # of each stage's samples, by private source
    frozen_seconds: float = 2.5  # silent that long, of beats every second: not waited for
    grace_seconds: float = (
        3.0  # a new leader waits so long for the islands of the open step; they dial every second
    )
    doubt_seconds: float = (
        60.0  # an old backup hears whoever comes for so long: one that knows more may have been cut off
    )
    fault_seconds: float = 0.1  # between a fault and the next attempt: news of a death may be on its way
    stall_seconds: float = (
        30.0  # an owner that brings its slice on by nothing for so long is late; never a total time
    )
    hold_seconds: float = 60.0
    last_seconds: float = 30.0  # whoever is here has so long to store the last update before the others end
    stuck_seconds: float = 1.0  # between attempts to find an owner
    forgive_seconds: float = 2.0  # until all are tried again, after faults have put everybody out

    @staticmethod
    def of(recipe: Recipe, self_test: bytes, genesis_root: bytes, num_pieces: int) -> "Rules":
        """The rules that a recipe makes for a state 0 of so many pieces."""
        outer = recipe.outer
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
            lr=outer.lr,
            momentum=outer.momentum,
            min_participants=outer.min_participants,
            num_pieces=num_pieces,
            partitioned=tuple(recipe.partitioned),
            private_shares=tuple(recipe.private_shares(stage) for stage in range(len(recipe.stage))),
        )
