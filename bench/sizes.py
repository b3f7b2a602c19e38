"""What a run of a preset takes of an island's disk, memory and link.

    python bench/sizes.py

Nothing runs: the figures follow from what the code keeps per parameter, with int8 and AdamW and the recipe's
defaults. They are what has to be there at the worst moment, activations and the operating system aside.
"""

from harness.report import Report, arguments

from atoll.agent.codecs import codec_named
from atoll.model.presets import PRESETS
from atoll.recipe import Island, Outer
from atoll.swarm.layout import BLOCK

NAMES = ["demo", "150m", "1b", "3b", "intellect-1"]
FP32 = 4
STATE_BYTES = 2 * FP32  # outer parameters and their momentum
MOMENTS_BYTES = 2 * FP32  # AdamW's two, of the inner optimizer
TRAVELS = 5 / 6  # of a chunk's bytes (docs/decisions/0014)
ISLANDS = 3


def row(name: str) -> dict[str, object]:
    """One preset's figures, in GB (1e9 bytes)."""
    outer, island, codec = Outer(inner_steps=1), Island(), codec_named("int8")
    encoded = codec.max_bytes(BLOCK) / BLOCK  # bytes a parameter
    # The log keeps two checkpoint intervals of updates, and a third fills up before it is pruned.
    log = 3 * outer.checkpoint_every * encoded
    mapped = STATE_BYTES + FP32 + 2 * encoded  # local parameters; payload, and the update in the making
    outer_checkpoints = (2 + 1) * STATE_BYTES  # the newest two, and one that is being written
    inner_checkpoints = (island.checkpoint_keep + 1) * MOMENTS_BYTES
    per_parameter = {
        "disk_gb": mapped + log + outer_checkpoints + inner_checkpoints,
        "mapped_gb": mapped,
        "trainer_gb": FP32 + FP32 + MOMENTS_BYTES,  # weights, gradients, moments
        # To the owners and, as an owner, back: each slice but one's own, twice.
        "gb_each_way_per_outer_step": 2 * (ISLANDS - 1) / ISLANDS * encoded,
        "join_gb": STATE_BYTES * TRAVELS,
    }
    count = PRESETS[name].num_parameters
    figures = {key: round(count * each / 1e9, 3) for key, each in per_parameter.items()}
    return {"preset": name, "parameters": count, "islands": ISLANDS, **figures}


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = Report("sizes", options, keys=["preset"])
    for name in NAMES:
        report.add(row(name))


if __name__ == "__main__":
    main()
