"""The world as the page draws it: an outline, and where a place is on it.

The projection is Equal Earth (Šavrič, Patterson and Jenny, 2018).
"""

import math
from functools import cache
from pathlib import Path

import msgspec

from atoll import publish

WIDTH = 1000.0  # of the whole world, in the page's units
NORTH, SOUTH = 84.0, -57.0  # degrees that are shown
A1, A2, A3, A4 = 1.340264, -0.081106, 0.000893, 0.003796
SCALE = WIDTH / (2 * math.pi * 2 / math.sqrt(3) / A1)

Place = tuple[float, float]


class _Land(msgspec.Struct, frozen=True):
    source: str
    land: list[list[float]]  # outlines: longitude, latitude, longitude, latitude, ...
    lakes: list[list[float]]


def projected(latitude: float, longitude: float) -> Place:
    """Where a place is on the map: to the right, and down from its upper edge."""
    x, y = _equal_earth(min(max(latitude, SOUTH), NORTH), longitude)
    return round(WIDTH / 2 + SCALE * x, 1), round(SCALE * (_top() - y), 1)


def height() -> float:
    """Of the map."""
    return projected(SOUTH, 0.0)[1]


@cache
def outline() -> str:
    """The outline of all land, and of lakes within it, as the path of an SVG; fill rule: evenodd."""
    path = Path(publish.__path__[0]) / "land.json"
    kept = msgspec.json.decode(path.read_bytes(), type=_Land)
    parts = list[str]()
    for ring in (*kept.land, *kept.lakes):
        points = [
            projected(latitude, longitude) for longitude, latitude in zip(ring[::2], ring[1::2], strict=True)
        ]
        parts.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z")
    return "".join(parts)


def _equal_earth(latitude: float, longitude: float) -> Place:
    t = math.asin(math.sqrt(3) / 2 * math.sin(math.radians(latitude)))
    slope = A1 + 3 * A2 * t**2 + t**6 * (7 * A3 + 9 * A4 * t**2)
    x = 2 * math.sqrt(3) * math.radians(longitude) * math.cos(t) / (3 * slope)
    return x, t * (A1 + A2 * t**2 + t**6 * (A3 + A4 * t**2))


@cache
def _top() -> float:
    return _equal_earth(NORTH, 0.0)[1]
