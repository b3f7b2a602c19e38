"""Documents from rows of JSON lines and parquet files. Only this file imports pyarrow and zstandard."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from atoll.errors import UserError
from atoll.recipe import Range, Source

JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst")
READ_BYTES = 1 << 18
BATCH_ROWS = 256

CountBytes = Callable[[float], None]  # called with the number of file bytes read since the last call


class Origin(NamedTuple):
    """Where a document came from; rows count from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


class Document(NamedTuple):
    """A row's text."""

    text: str
    origin: Origin


class BadRow(NamedTuple):
    """A row that cannot be a document, and why."""

    reason: str
    origin: Origin


class Unwanted(NamedTuple):
    """A row that the recipe's `keep` leaves out."""

    origin: Origin


Item = Document | BadRow | Unwanted


def decoded(data: bytes, origin: Origin) -> Document | BadRow:
    """The document with the UTF-8 text `data`, or a bad row where it is not UTF-8."""
    try:
        return Document(data.decode(), origin)
    except UnicodeDecodeError as error:
        at_end = "; is the file truncated?" if error.reason == "unexpected end of data" else ""
        return BadRow(f"not UTF-8 at byte {error.start}{at_end}", origin)


def read_table(path: Path, source: Source, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the rows of a parquet or JSON lines file, which its suffix tells apart."""
    return (read_parquet if path.suffix == ".parquet" else read_jsonl)(path, source, count_bytes)


def read_jsonl(path: Path, source: Source, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the rows of a `.jsonl`, `.jsonl.gz` or `.jsonl.zst` file; blank lines are left out.

    Raises UserError for a damaged or truncated compressed file.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(split_stream(chunks(path, count_bytes), b"\n"), 1):
        if line.strip():
            origin = Origin(str(path), number)
            try:
                row = decoder.decode(line)
            except UnicodeDecodeError:
                yield BadRow("not UTF-8", origin)
            except (msgspec.MsgspecError, RecursionError) as error:
                yield BadRow(f"not a JSON object: {error}", origin)
            else:
                yield to_item(row, source, origin)


def read_parquet(path: Path, source: Source, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the rows of a parquet file.

    Raises UserError when the file is damaged, a column is missing, or the text column is not text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            for column in (source.column, *source.keep):
                if column not in schema.names:
                    raise UserError(f"{path}: {_no_column(column, schema.names)}")
            kind = schema.field(source.column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise UserError(f"{path}: column {source.column!r} is {kind}, not text")
            row_bytes = path.stat().st_size / max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(BATCH_ROWS, columns=[source.column, *source.keep]):
                # As bytes: parquet does not promise UTF-8, and one bad row must not spoil its whole batch.
                text = batch.column(source.column).cast(pa.large_binary())
                kept = {name: batch.column(name).to_pylist() for name in source.keep if name != source.column}
                for at, value in enumerate(text.to_pylist()):
                    number += 1
                    others = {name: values[at] for name, values in kept.items()}
                    yield to_item(others | {source.column: value}, source, Origin(str(path), number))
                count_bytes(row_bytes * batch.num_rows)
    except pa.ArrowException as error:
        raise UserError(f"{path}: damaged or truncated, after row {number}: {error}") from error


def to_item(row: Mapping[str, Any], source: Source, origin: Origin) -> Item:
    """What a row is: a document, bad or unwanted. `row`: values by column, the text as str or UTF-8."""
    for column in (source.column, *source.keep):
        if column not in row:
            return BadRow(_no_column(column, list(row)), origin)
    if not all(_is_kept(row[column], wanted) for column, wanted in source.keep.items()):
        return Unwanted(origin)
    value = row[source.column]
    if value is None:
        return BadRow("null instead of text", origin)
    document = decoded(value, origin) if isinstance(value, bytes) else Document(value, origin)
    if isinstance(document, BadRow):
        return document
    if not isinstance(document.text, str):
        return BadRow(f"{type(value).__name__} instead of text", origin)
    return document if document.text.strip() else BadRow("empty text", origin)


def chunks(path: Path, count_bytes: CountBytes) -> Iterator[bytes]:
    """Yield a file's bytes, decompressed where the suffix says so.

    Raises UserError for a damaged or truncated compressed file.
    """
    with path.open("rb") as file:
        raw = _counted(iter(lambda: file.read(READ_BYTES), b""), count_bytes)
        if path.suffix == ".gz":
            yield from _decompressed(path, raw, lambda: zlib.decompressobj(wbits=31), zlib.error)
        elif path.suffix == ".zst":
            import zstandard

            decompressor = zstandard.ZstdDecompressor()
            yield from _decompressed(path, raw, decompressor.decompressobj, zstandard.ZstdError)
        else:
            yield from raw


def split_stream(pieces: Iterator[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield the parts between separators; holds one part and one piece in memory."""
    buffer = bytearray()
    for piece in pieces:
        search_from = max(len(buffer) - len(separator) + 1, 0)  # no separator begins before this
        buffer += piece
        start = 0
        while (at := buffer.find(separator, max(start, search_from))) >= 0:
            yield bytes(buffer[start:at])
            start = at + len(separator)
        del buffer[:start]
    yield bytes(buffer)


def _counted(raw: Iterator[bytes], count_bytes: CountBytes) -> Iterator[bytes]:
    for data in raw:
        yield data
        count_bytes(len(data))


def _decompressed(
    path: Path, raw: Iterator[bytes], start: Any, error_type: type[Exception]
) -> Iterator[bytes]:
    """Yield the content of concatenated compressed members.

    `start` makes a decompressor for one member, which raises `error_type` for damaged data. Raises UserError
    for damaged data, and when the file ends within a member.
    """
    member = None
    try:
        for data in raw:
            while data:
                member = member or start()
                yield member.decompress(data)
                data, member = (member.unused_data, None) if member.eof else (b"", member)
    except error_type as error:
        raise UserError(f"{path}: damaged: {error}") from error
    if member is not None:
        raise UserError(f"{path}: truncated: it ends in the middle of its compressed data")


def _is_kept(value: Any, wanted: list[Any] | Range) -> bool:
    if isinstance(wanted, Range):
        low, high = wanted.min, wanted.max
        return (
            isinstance(value, int | float)
            and (low is None or low <= value)
            and (high is None or value <= high)
        )
    return (value.decode(errors="replace") if isinstance(value, bytes) else value) in wanted


def _no_column(column: str, names: list[str]) -> str:
    return f"no column {column!r}; there is: {', '.join(names) or 'none'}"
