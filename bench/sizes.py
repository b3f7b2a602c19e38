"""What a run of a preset takes of an island's disk, memory and link.

    python bench/sizes.py

Nothing runs: the figures follow from what the code keeps per parameter, with int8 and AdamW and the recipe's
defaults. They are what has to be there at the worst moment, activations and the operating system aside.
"""

from harness.report import Report, arguments

from atoll.model.presets import PRESETS
from atoll.simulate.sizes import most_payloads, sizes

NAMES = ["demo", "150m", "1b", "3b", "intellect-1"]
ISLANDS = 3


def row(name: str) -> dict[str, object]:
    """One preset's figures, in GB (1e9 bytes)."""
    count = PRESETS[name].num_parameters
    taken = sizes(count, "int8")
    figures = {
        "disk_gb": taken.disk,
        "mapped_gb": taken.mapped,
        "trainer_gb": taken.trainer,
        "gb_each_way_per_outer_step": most_payloads(ISLANDS) * taken.payload,
        "join_gb": taken.join,
    }
    rounded = {key: round(value / 1e9, 3) for key, value in figures.items()}
    return {"preset": name, "parameters": count, "islands": ISLANDS, **rounded}


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = Report("sizes", options, keys=["preset"])
    for name in NAMES:
        report.add(row(name))


if __name__ == "__main__":
    main()
