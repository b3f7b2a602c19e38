"""The instructions to begin with, and what of them is left out."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from atoll.data.rows import Document, read_jsonl
from atoll.data.shapes import Text
from atoll.data.stream import parts
from atoll.errors import UserError
from atoll.given import expanded, named
from atoll.recipe import Source


class Seed(NamedTuple):
    """An instruction, and where it stands in its file; rows count from 1."""

    row: int
    text: str


class Seeds(NamedTuple):
    """What a file holds."""

    kept: list[Seed]
    left_out: Counter[str]  # how many, by reason

    @staticmethod
    def read(path: str, column: str) -> "Seeds":
        """The instructions in a file: `column` of JSON lines, or else a line each.

        Bad rows, empty ones and repetitions are left out and counted. Raises UserError for a file that is not
        there or not UTF-8, and where nothing is left.
        """
        file = expanded(path)
        if not file.is_file():
            raise UserError(f"{named(path)}: no such file; give one of seed instructions")
        found = _json_lines(file, column) if ".jsonl" in file.suffixes else _lines(file)
        kept: dict[str, Seed] = {}
        left_out: Counter[str] = Counter()
        for row, text, reason in found:
            text = text.strip()
            if reason or not text:
                left_out[reason or "empty"] += 1
            elif text in kept:
                left_out["a repetition"] += 1
            else:
                kept[text] = Seed(row, text)
        if not kept:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "it is empty"
            raise UserError(f"{named(path)}: holds no instruction ({reasons})")
        return Seeds(list(kept.values()), left_out)


Found = list[tuple[int, str, str]]  # (row, text, why it is none)


def _json_lines(file: Path, column: str) -> Found:
    found: Found = []
    for item in read_jsonl(file, Source(jsonl=str(file)), Text(column), lambda _: None):
        row = item.origin.row
        if isinstance(item, Document):
            found.append((row, item.text, ""))
        else:
            found.append((row, "", getattr(item, "reason", "unwanted")))
    return found


def _lines(file: Path) -> Found:
    lines = list(parts(file, "\n", lambda _: None))
    if lines and not lines[-1]:
        lines.pop()  # what follows the last line's end is no line
    try:
        return [(row, line.decode(), "") for row, line in enumerate(lines, start=1)]
    except UnicodeDecodeError as error:
        raise UserError(f"{named(file)}: not UTF-8; save it as UTF-8") from error
