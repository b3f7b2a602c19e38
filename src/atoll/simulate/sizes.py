"""What a run takes of an island, in bytes of disk, memory and traffic: it follows from what the code keeps.

One source for `atoll simulate --plan`, for what `atoll join` and `doctor` say, and for the README's table.
Activations, the operating system and the prepared data come on top.
"""

import msgspec

from atoll.agent.codecs import codec_named
from atoll.recipe import Island, Outer
from atoll.swarm.layout import BLOCK

FP32 = 4
STATE_BYTES = 2 * FP32  # outer parameters and their momentum
MOMENTS_BYTES = 2 * FP32  # of AdamW, the inner optimizer
TRAVELS = 5 / 6  # of a chunk's bytes (docs/decisions/0014)
LOG_INTERVALS = 3  # the log keeps two checkpoint intervals of updates, and a third fills up
OUTER_CHECKPOINTS = 3  # the newest two, and one that is being written


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What an island of a run takes, with AdamW; all in bytes."""

    disk: float  # at the worst moment, what is mapped included
    mapped: float  # files that are best kept in memory
    trainer: float  # weights, gradients and moments: memory of the device that trains
    payload: float  # an encoded pseudo-gradient; an update is as large
    join: float  # what a joiner receives, beside data


def sizes(
    num_parameters: int, codec: str, checkpoint_every: int | None = None, checkpoint_keep: int | None = None
) -> Sizes:
    """What an island takes of a run of so many trained parameters.

    `checkpoint_every`: outer steps between outer checkpoints; `checkpoint_keep`: inner checkpoints that an
    island keeps; None: the recipe's default.
    """
    every = checkpoint_every or Outer(inner_steps=1).checkpoint_every
    keep = checkpoint_keep or Island().checkpoint_keep
    encoded = codec_named(codec).max_bytes(BLOCK) / BLOCK
    # The outer state, what the trainer hands over, the payload, and the update in the making.
    mapped = STATE_BYTES + FP32 + 2 * encoded
    log = LOG_INTERVALS * every * encoded
    checkpoints = OUTER_CHECKPOINTS * STATE_BYTES + (keep + 1) * MOMENTS_BYTES
    return Sizes(
        disk=num_parameters * (mapped + log + checkpoints),
        mapped=num_parameters * mapped,
        trainer=num_parameters * (2 * FP32 + MOMENTS_BYTES),
        payload=num_parameters * encoded,
        join=num_parameters * STATE_BYTES * TRAVELS,
    )


def most_payloads(num_islands: int) -> float:
    """Payloads that an island sends in an outer step, and receives, where equals reduce for each other."""
    return 2 * (num_islands - 1) / num_islands if num_islands else 0.0
