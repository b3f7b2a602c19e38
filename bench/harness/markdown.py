"""Markdown tables of what is kept of a bench, each with the origin of its rows under it.

A cell is a format string over a row's values, as in "{ours:,} tokens/s", or a function of them. What a row
has no value for is a dash; booleans are yes and no; a pair of numbers is a range.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.results import Origin, Results, Row

Values = Mapping[str, Any]  # of a row
Cell = str | Callable[[Values], str]
NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A line for each row."""

    columns: Mapping[str, Cell]  # by heading

    def render(self, rows: Sequence[Row]) -> str:
        lines = [[shown(cell, row.values) for cell in self.columns.values()] for row in rows]
        return table([list(self.columns), *lines])


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A column for each row, for rows of many values."""

    head: Cell  # of a column
    lines: Mapping[str, Cell]  # by what stands at a line's left

    def render(self, rows: Sequence[Row]) -> str:
        head = ["", *(shown(self.head, row.values) for row in rows)]
        lines = [[name, *(shown(cell, row.values) for row in rows)] for name, cell in self.lines.items()]
        return table([head, *lines])


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A cell for each row, for rows that two values tell apart."""

    corner: str
    down: Cell
    across: Cell
    cell: Cell

    def render(self, rows: Sequence[Row]) -> str:
        found = {
            (shown(self.down, row.values), shown(self.across, row.values)): shown(self.cell, row.values)
            for row in rows
        }
        down, across = (list(dict.fromkeys(keys)) for keys in zip(*found, strict=True))
        lines = [[left, *(found.get((left, top), NOTHING) for top in across)] for left in down]
        return table([[self.corner, *across], *lines])


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A table of one bench's rows."""

    bench: str
    form: Lines | Columns | Grid
    only: Callable[[Values], bool] = lambda values: True

    def render(self, results: Results | None) -> str:
        """The table and where its rows come from, or how to get rows where there are none."""
        rows = [row for row in results.rows if self.only(row.values)] if results else []
        if results is None or not rows:
            return f"Not measured yet: `python bench/{self.bench}.py --save` fills this table."
        return f"{self.form.render(rows)}\n\n{origins(results, rows)}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the heading."""
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(lines[0]), *text[1:]])


def shown(cell: Cell, values: Values) -> str:
    """What a cell says of a row."""
    try:
        return cell(values) if callable(cell) else _Words().vformat(cell, (), values)
    except (KeyError, TypeError):  # no such value, or none that can be formatted
        return NOTHING


def origins(results: Results, rows: Sequence[Row]) -> str:
    """A sentence for each origin of these rows, naming the rows where their command alone does not."""
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(sentence(row.origin), []).append(row)
    commands = [same[0].origin.command for same in of.values()]
    sentences: list[str] = []
    for text, same in of.items():
        if commands.count(same[0].origin.command) > 1:
            text += f" Of: {'; '.join(named(results, row) for row in same)}."
        sentences.append(text)
    return "\n".join(sentences)


def named(results: Results, row: Row) -> str:
    """What tells a row from the others."""
    identity = zip(results.keys, results.identity(row), strict=True)
    return ", ".join(f"{key} {value}" for key, value in identity if value not in (None, ""))


def sentence(origin: Origin) -> str:
    """How a row was made."""
    commit = f"commit {origin.commit}" if origin.commit else "commit not recorded"
    packages = [f"{name} {version}" for name, version in origin.packages.items()]
    facts = [commit, origin.date, *([str(origin.machine)] if origin.machine else []), *packages]
    return f"From `{origin.command}`: {', '.join(facts)}."


class _Words(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            raise KeyError("no value")
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list):
            ends = [format(end, format_spec) for end in value]
            return " to ".join(dict.fromkeys(ends))
        return format(value, format_spec)
