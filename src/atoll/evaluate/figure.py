"""Curves as a picture. Only this file imports matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from atoll.errors import UserError
from atoll.evaluate.curve import Curve
from atoll.files import atomic_path
from atoll.given import named

WIDTH, HEIGHT = 6.4, 3.2  # inches, of one curve
DOTS_PER_INCH = 150


def refuse_other(path: Path | None) -> None:
    """Raises UserError for the name of another kind of file."""
    if path is not None and path.suffix.lower() != ".png":
        raise UserError(f"--plot {named(path)}: only a PNG can be drawn; give a name that ends in .png")


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """Write the curves, one below the other, as a PNG. Raises DiskError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT * len(curves)), layout="constrained")
    for number, curve in enumerate(curves, start=1):
        axes = figure.add_subplot(len(curves), 1, number)
        axes.errorbar(
            [point.tokens for point in curve.points],
            [point.value for point in curve.points],
            yerr=[point.error for point in curve.points],
            marker="o",
            capsize=3,
        )
        if curve.chance is not None:
            axes.axhline(curve.chance, linestyle="--", color="grey", label="chance")
            axes.legend(loc="best")
        axes.set(title=curve.title, xlabel="committed tokens", ylabel="score")
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
