"""How a sentence names several things."""

from collections.abc import Iterable


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`; "" for no names."""
    *first, end = list(names) or [""]
    return f"{', '.join(first)} {last} {end}" if first else end
