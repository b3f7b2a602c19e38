"""The pictures of a model card: where the islands stood, and how the loss fell. Only this file imports
matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from atoll.publish.facts import Loss, Place
from atoll.terminal.figures import human

LAND = Path(__file__).with_name("land.json")
DOTS_PER_INCH = 160
SEA, SHORE, ISLANDS, CURVE = "#eef3f6", "#c3d0d6", "#d1495b", "#1f6f8b"


class _Land(msgspec.Struct, frozen=True):
    source: str
    land: list[list[float]]  # outlines: longitude, latitude, longitude, latitude, ...
    lakes: list[list[float]]


def draw_map(path: Path, places: Sequence[Place]) -> None:
    """Write a map of the world with a dot at each place that was found, as a PNG."""
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    land = msgspec.json.decode(LAND.read_bytes(), type=_Land)
    figure = Figure((8, 3.9), dpi=DOTS_PER_INCH, facecolor=SEA)
    axes = figure.add_axes((0, 0, 1, 1))
    for outlines, colour in ((land.land, SHORE), (land.lakes, SEA)):
        rings = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in outlines]
        axes.add_collection(PolyCollection(rings, facecolors=colour, edgecolors="white", linewidths=0.3))
    found = [place.found for place in places if place.found is not None]
    axes.scatter(
        [longitude for _, longitude in found],
        [latitude for latitude, _ in found],
        s=42,
        c=ISLANDS,
        edgecolors="white",
        linewidths=0.8,
        zorder=3,
    )
    axes.set(xlim=(-180, 180), ylim=(-60, 85))
    axes.set_axis_off()
    figure.savefig(path, metadata={"Software": None})


def draw_losses(path: Path, losses: Sequence[Loss]) -> None:
    """Write the curve of the training loss over tokens, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure((8, 3.6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [loss.tokens for loss in losses],
        [loss.loss for loss in losses],
        color=CURVE,
        marker="o" if len(losses) < 40 else "",
        markersize=3,
    )
    axes.set(xlabel="tokens", ylabel="training loss (nats per token)")
    axes.xaxis.set_major_formatter(lambda count, _: human(count))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
