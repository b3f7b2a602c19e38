"""Figures as people read them."""

import itertools
import time

BARS = "▁▂▃▄▅▆▇█"


def human(count: float) -> str:
    """A count with at most four digits: 1234567 -> 1.23 M."""
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{name}"
    return f"{count:.4g}"


def duration(seconds: float) -> str:
    """Seconds in the units people read."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def loss_of(loss: float | None) -> str:
    """A loss in nats per token; None where there was nothing to predict."""
    return "no label" if loss is None else f"loss {loss:.3f}"


def clock(seconds: float) -> str:
    """A time of the day, here."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def spark(values: list[float], width: int = 0) -> str:
    """A curve in one line, of at most `width` characters, each for some of the values; 0: one for each."""
    if width and len(values) > width:
        bounds = [len(values) * k // width for k in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)
