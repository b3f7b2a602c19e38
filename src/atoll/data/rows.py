"""Documents from rows: of JSON lines here, of parquet files in `parquet.py`."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from atoll.data.shapes import NoColumnError, Shape, no_column
from atoll.data.stream import CountBytes, parts
from atoll.data.turns import BadTurns
from atoll.given import is_utf_8, named, wide_encoding
from atoll.recipe import Range, Source

ONE_ARRAY = "; if the file is one array, write its rows one a line: jq -c '.[]' FILE > ROWS.jsonl"
MAX_DIGITS = 4000  # of an integer: Python refuses to read more than 4,300
Kept = Callable[[Mapping[str, Any]], bool]  # whether the recipe's `keep` keeps a row


class Origin(NamedTuple):
    """Where a document came from; rows count from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


class Document(NamedTuple):
    """A row's text, or, where it is a chat or a pair, the text of a `shapes.Row`."""

    text: str
    origin: Origin


class BadRow(NamedTuple):
    """A row that cannot be a document, and why."""

    reason: str
    origin: Origin
    kind: str  # the reason without what is particular to the row: the rows that are skipped are counted by it


class Unwanted(NamedTuple):
    """A row that the recipe's `keep` leaves out."""

    origin: Origin


Item = Document | BadRow | Unwanted


def decoded(data: bytes, origin: Origin) -> Document | BadRow:
    """The document with the UTF-8 text `data`, or a bad row where it is not UTF-8."""
    if encoding := wide_encoding(data):
        return BadRow(f"not UTF-8 but {encoding}, as its byte-order mark says", origin, f"{encoding} text")
    try:
        return Document(data.decode(), origin)
    except UnicodeDecodeError as error:
        at_end = "; is the file truncated?" if error.reason == "unexpected end of data" else ""
        return BadRow(f"not UTF-8 at byte {error.start}{at_end}", origin, "not UTF-8")


def read_jsonl(path: Path, source: Source, shape: Shape, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the rows of a file of JSON lines, which may be compressed; blank lines are left out.

    Raises UserError for a damaged or truncated compressed file, and for one that is not UTF-8 as a whole.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(parts(path, "\n", count_bytes), 1):
        if line.strip():
            origin = Origin(named(path), number)
            try:
                item = to_item(decoder.decode(line), source, shape, origin)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                row = _read_leniently(line)
                item = None if row is None else to_item(row, source, shape, origin)
                if item is None or (isinstance(item, Document) and not is_utf_8(item.text)):
                    hint = ONE_ARRAY if number == 1 and line.lstrip().startswith(b"[") else ""
                    item = BadRow(f"not a JSON object: {error}{hint}", origin, "not a JSON object")
                    if isinstance(error, UnicodeDecodeError):
                        item = BadRow("not UTF-8", origin, "not UTF-8")
            yield item


def to_item(
    row: Mapping[str, Any], source: Source, shape: Shape, origin: Origin, kept: Kept | None = None
) -> Item:
    """What a row is: a document, bad or unwanted. `row`: values by column, texts as str or UTF-8.

    `kept` decides about `keep` where the columns have types; else their values are compared as they are.
    """
    names = list(row)
    try:
        shape.columns(names)
        for column in source.keep:
            if column not in row:
                raise NoColumnError(no_column(column, names), f"no column {column!r}")
        if not (kept(row) if kept else all(fits(row[name], wanted) for name, wanted in source.keep.items())):
            return Unwanted(origin)
        value = shape.text(row)
    except (NoColumnError, BadTurns) as error:
        return BadRow(str(error), origin, error.kind)
    if value is None:
        return _bad("null instead of text", origin)
    document = decoded(value, origin) if isinstance(value, bytes) else Document(value, origin)
    if isinstance(document, BadRow):
        return document
    if not isinstance(document.text, str):
        return _bad(f"{type(value).__name__} instead of text", origin)
    return document if document.text.strip() else _bad("empty text", origin)


def fits(value: Any, wanted: list[Any] | Range) -> bool:
    """Whether a value is one of those that `keep` names, or in its range.

    Only values of one kind are compared: numbers, texts or truths.
    """
    if isinstance(wanted, Range):
        low, high = (None if bound is None else _like(bound, value) for bound in (wanted.min, wanted.max))
        return _is_number(value) and (low is None or low <= value) and (high is None or value <= high)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if _is_number(value):
        return any(_is_number(each) and _like(each, value) == value for each in wanted)
    return any(type(each) is type(value) and each == value for each in wanted)


def _bad(reason: str, origin: Origin) -> BadRow:
    return BadRow(reason, origin, reason)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _like(bound: float, value: Any) -> Any:
    """A recipe's number as it is to be compared with `value`: 0.9 is the decimal 0.9 beside a decimal."""
    return Decimal(repr(bound)) if isinstance(value, Decimal) else bound


def _read_leniently(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line as Python's own reader and others write it, or None for no object.

    NaN and infinities are numbers, integers have any number of digits, and a text may hold half a surrogate
    pair or, as surrogates, bytes that are not UTF-8: such values are often in columns that nobody asked for.
    """
    try:
        row = json.loads(line.decode(errors="surrogateescape"), parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else math.copysign(math.inf, float(digits))
