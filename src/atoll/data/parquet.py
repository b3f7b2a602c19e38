"""The rows of parquet files. Only this file imports pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from atoll.data.rows import BadRow, Item, Kept, Origin, fits, to_item
from atoll.data.shapes import NoColumnError, Shape, Text, no_column
from atoll.data.stream import CountBytes
from atoll.errors import UserError
from atoll.given import named, refuse_pointer
from atoll.recipe import Range, Source

BATCH_ROWS = 256
NOT_UTF_8 = object()  # in the place of a value that cannot be read
NARROW = {"halffloat": np.float16, "float": np.float32}  # Arrow's names of types that TOML's numbers exceed


def read_parquet(path: Path, source: Source, shape: Shape, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the rows of a parquet file.

    Raises UserError when the file is damaged, or a column that is needed is missing, there twice, or of a
    type that cannot be text or be compared.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_pointer(path)
    shown, number = named(path), 0
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            columns = _columns(schema.names, source, shape, shown)
            if isinstance(shape, Text):
                kind = _plain(schema.field(shape.column).type)
                if not (_is_text(kind) or pa.types.is_null(kind)):
                    raise UserError(f"{shown}: column {shape.column!r} is {kind}, not text")
            kept = keeps(schema, source, shown)
            row_bytes = path.stat().st_size / max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                values = [_values(batch.column(name)) for name in columns]
                for cells in zip(*values, strict=True):
                    number += 1
                    origin = Origin(shown, number)
                    if any(cell is NOT_UTF_8 for cell in cells):
                        yield BadRow("not UTF-8", origin, "not UTF-8")
                        continue
                    row = dict(zip(columns, cells, strict=True))
                    yield to_item(row, source, shape, origin, kept)
                count_bytes(row_bytes * batch.num_rows)
    except pa.ArrowNotImplementedError as error:
        raise UserError(f"{shown}: this pyarrow cannot read it, after row {number}: {error}") from error
    except pa.ArrowException as error:
        raise UserError(f"{shown}: damaged or truncated, after row {number}: {error}") from error


def _columns(names: list[str], source: Source, shape: Shape, shown: str) -> list[str]:
    """The columns of a file that are read. Raises UserError where one is missing, or there twice."""
    try:
        columns = list(dict.fromkeys([*shape.columns(names), *source.keep]))
    except NoColumnError as error:
        raise UserError(f"{shown}: {error}") from error
    for column in columns:
        if not (count := names.count(column)):
            raise UserError(f"{shown}: {no_column(column, names)}")
        if count > 1:
            raise UserError(f"{shown}: {count} columns are named {column!r}; give them different names")
    return columns


def keeps(schema: Any, source: Source, where: str) -> Kept:
    """Whether `keep` keeps a row of a table of this Arrow schema.

    Numbers are compared in the precision of their column, so 0.9 in a column of float32 is in the range from
    0.9 on. Raises UserError, naming `where`, for a column that can have none of the values wanted.
    """
    wanted = {name: _fitting(schema.field(name), values, where) for name, values in source.keep.items()}
    return lambda row: all(fits(row[name], values) for name, values in wanted.items())


def _fitting(field: Any, wanted: list[Any] | Range, where: str) -> list[Any] | Range:
    """What `keep` wants of a column, in its precision. Raises UserError where it can have none of that."""
    import pyarrow as pa

    kind = _plain(field.type)
    if pa.types.is_null(kind):
        return wanted  # every row is null, and left out
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if isinstance(wanted, Range):
        if not is_number:
            raise UserError(f"{where}: column {field.name!r} is {kind}, and keep gives a range of numbers")
        narrow = [None if bound is None else _narrow(bound, kind) for bound in (wanted.min, wanted.max)]
        return msgspec.structs.replace(wanted, min=narrow[0], max=narrow[1])
    known = (str,) if _is_text(kind) else (bool,) if pa.types.is_boolean(kind) else (int, float)
    if not (is_number or _is_text(kind) or pa.types.is_boolean(kind)):
        raise UserError(
            f"{where}: column {field.name!r} is {kind}; keep compares numbers, texts, true and false only"
        )
    if not any(type(value) in known for value in wanted):
        raise UserError(f"{where}: column {field.name!r} is {kind}, and keep gives no value of that kind")
    return [_narrow(value, kind) if type(value) in (int, float) else value for value in wanted]


def _narrow(bound: int | float, kind: Any) -> int | float:
    narrow = NARROW.get(str(kind))
    if narrow is None:
        return bound
    with np.errstate(over="ignore"):
        return float(narrow(bound))


def _plain(kind: Any) -> Any:
    """The type of a column's values, however they are kept and whatever further meaning they have."""
    import pyarrow as pa

    while pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    return kind


def _is_text(kind: Any) -> bool:
    """Whether values can be text: bytes are, which some writers do not mark as text, where they are UTF-8."""
    import pyarrow as pa

    texts = (pa.string(), pa.large_string(), pa.string_view())
    return kind in (*texts, pa.binary(), pa.large_binary(), pa.binary_view())


def _stored(column: Any) -> Any:
    """A column's values without what an extension type makes of them."""
    import pyarrow as pa

    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _values(column: Any) -> list[Any]:
    """A column's values as Python's: texts as bytes, which may be no UTF-8.

    Arrow gives the texts within tables and arrays as str: a row where these are no UTF-8 is `NOT_UTF_8`.
    """
    import pyarrow as pa

    stored = _stored(column)
    plain = stored.cast(pa.large_binary()) if _is_text(_plain(stored.type)) else stored
    try:
        values = plain.to_pylist()
    except UnicodeDecodeError:
        values = [_value(cell) for cell in plain]
    return [float(value) if isinstance(value, np.generic) else value for value in values]


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return NOT_UTF_8
