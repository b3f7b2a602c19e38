"""Figures of outer steps in columns; the same put together into so few points that a page stays smooth."""

import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from atoll.dashboard.view import Figures

UNKNOWN = math.nan
DIGITS = 6  # significant ones that are shown to a page

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Columns:
    """Rows of figures that are appended, and taken back where a run goes back to an older state."""

    def __init__(self, names: Iterable[str]) -> None:
        self._columns = {name: array("d") for name in names}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def append(self, figures: dict[str, float | None]) -> None:
        """Another row; a figure that is not given, None or infinite is not known."""
        for name, column in self._columns.items():
            figure = figures.get(name)
            column.append(figure if figure is not None and math.isfinite(figure) else UNKNOWN)

    def truncate(self, length: int) -> None:
        """Forget all rows from `length` on."""
        for column in self._columns.values():
            del column[length:]

    def thin(self) -> None:
        """Forget every second row, the first of each two."""
        for name, column in self._columns.items():
            self._columns[name] = column[1::2]

    def at(self, name: str, index: int) -> float:
        """One figure; NaN where it is not known."""
        return self._columns[name][index]

    def column(self, name: str) -> Floats:
        """A copy of a column; NaN where a figure is not known."""
        return np.array(self._columns[name], np.float64)


class Points:
    """How so many rows become at most `max_points` points, each of rows that follow one another."""

    def __init__(self, num_rows: int, max_points: int) -> None:
        num_points = min(num_rows, max_points)
        self.stride = num_rows / num_points if num_points else 1.0
        ends = (np.arange(1, num_points + 1) * num_rows) // max(num_points, 1)
        self._first = np.concatenate(([0], ends[:-1])).astype(np.intp) if num_points else ends
        self._last = ends - 1

    def last(self, column: Floats) -> Floats:
        """Each point's last figure."""
        return column[self._last]

    def mean(self, column: Floats, weights: Floats | None = None) -> Floats:
        """Each point's mean over what is known of it."""
        if not len(self._first):
            return column[:0]
        weights = np.ones_like(column) if weights is None else np.nan_to_num(weights)
        weights = np.where(np.isnan(column), 0.0, weights)
        totals = np.add.reduceat(np.nan_to_num(column) * weights, self._first)
        known = np.add.reduceat(weights, self._first)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(known > 0, totals / known, UNKNOWN)

    def low(self, column: Floats) -> Floats:
        """Each point's least known figure."""
        return np.fmin.reduceat(column, self._first) if len(self._first) else column[:0]

    def high(self, column: Floats) -> Floats:
        """Each point's largest known figure."""
        return np.fmax.reduceat(column, self._first) if len(self._first) else column[:0]


def figures(values: Sequence[float] | Floats) -> Figures:
    """Figures as a page gets them: None where one is not known, and no more digits than it can show."""
    return [None if math.isnan(value) else short(value) for value in map(float, values)]


def short(value: float) -> float:
    """A figure with at most DIGITS significant digits; whole numbers and times keep all of theirs."""
    if value == 0.0 or value.is_integer():
        return value
    digits = DIGITS - 1 - math.floor(math.log10(abs(value)))
    return round(value, max(digits, 2))
