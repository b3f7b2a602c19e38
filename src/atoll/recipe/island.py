"""`[island]`: how one machine trains. Each has its own; none of it is in the run's digest."""

from atoll.recipe.bounds import (
    NonEmptyStr,
    NonNegativeInt,
    NumThreads,
    PathStr,
    PositiveFloat,
    PositiveInt,
)
from atoll.recipe.table import Table


class Island(Table, frozen=True, kw_only=True):
    """The settings of one island."""

    device: NonEmptyStr = "auto"  # torch's name of it; auto: the accelerator that torch finds, else the CPU
    base: PathStr | None = None  # where this machine's copy of model.from lies; none given: there
    threads: NumThreads | None = None  # of torch on the CPU; none given: torch decides
    micro_batch: PositiveInt = 8  # windows per forward pass of a rank
    activation_checkpointing: bool = False  # compute activations twice instead of keeping them
    compile: bool = False  # blocks through torch.compile; pays where windows hold equal documents, or one
    cpu_offload: bool = False  # an accelerator's: parameters, gradients and moments live in the host's memory
    float8: bool = False  # blocks multiply in float8 (torchao), on the CPU emulated; pays with compile
    read_every: PositiveInt = 10  # inner steps between looks at the loss, and reports
    checkpoint_every: PositiveInt = 1  # outer steps between inner checkpoints
    checkpoint_keep: PositiveInt = 2  # inner checkpoints that stay, the newest ones
    # A folder or URL (s3://, gs://, ... through fsspec) of this island alone that takes copies; "": none.
    checkpoint_to: str = ""
    # Mbit/s that this machine gives the run at most, each way; none given: all that its link carries.
    upload_mbit: PositiveFloat | None = None
    download_mbit: PositiveFloat | None = None
    profile: bool = False  # trace a few inner steps of the second outer step, into this island's directory
    evaluate_every: NonNegativeInt = 0  # outer steps between looks at held-out loss; 0: never
