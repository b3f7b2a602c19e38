"""The rows that are kept of a bench, in bench/results/NAME.json: each with the commit, machine and command
that it came from.

The tables in docs/ are made from these files (`python docs/tables.py`), so a figure that is shown and its
origin cannot come apart.
"""

from pathlib import Path
from typing import Any

import msgspec

from atoll.errors import UserError
from atoll.files import write_atomic
from harness.machine import Machine

RESULTS_DIR = Path(__file__).parents[1] / "results"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a row comes from. `commit` and `machine` are None where nobody wrote them down."""

    commit: str | None  # ends in -dirty where the code that ran was not what was committed
    date: str  # as in 2026-11-27, UTC
    machine: Machine | None
    command: str
    packages: dict[str, str] = {}  # versions of the libraries that the figures depend on


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of figures, under the names that the bench prints."""

    values: dict[str, Any]
    origin: Origin


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All rows that are kept of one bench. Rows with equal values of `keys` measure the same thing."""

    bench: str
    keys: list[str]
    rows: list[Row]

    def identity(self, row: Row) -> tuple[Any, ...]:
        """What tells `row` from the others. A key that it lacks counts as None."""
        return tuple(row.values.get(key) for key in self.keys)

    def with_row(self, row: Row) -> "Results":
        """These results with `row` in the place of the one that measured the same thing, else at the end.

        The other rows keep their own origin, so that rows of different days can stand beside one another.
        """
        rows = [*self.rows]
        for number, old in enumerate(rows):
            if self.identity(old) == self.identity(row):
                rows[number] = row
                break
        else:
            rows.append(row)
        return msgspec.structs.replace(self, rows=rows)


def load(bench: str, directory: Path = RESULTS_DIR) -> Results | None:
    """What is kept of a bench; None where nothing is. Raises UserError for a file that is something else."""
    path = directory / f"{bench}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: not the results of a bench: {error}; mend it, or remove it") from error


def save(results: Results, directory: Path = RESULTS_DIR) -> None:
    """Write the bench's file, whole or not at all. Raises UserError when the disk is full."""
    text = msgspec.json.format(msgspec.json.encode(results), indent=2)
    write_atomic(directory / f"{results.bench}.json", text + b"\n")
