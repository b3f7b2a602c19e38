"""JSON lines as programs write them, and parquet of every Arrow type: no row is lost in silence."""

import gzip
import json
import struct
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from atoll.data.rows import Document
from atoll.data.sources import SourceReader
from atoll.errors import UserError
from atoll.recipe import Range, Source

TEXT = st.text(max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3)
)
ROWS = st.dictionaries(st.sampled_from(["text", "n", "other"]), VALUES)
SKIPPABLE = struct.pack("<II", 0x184D2A5F, 3) + b"abc"
PACKINGS = {
    "a.jsonl": lambda parts: b"".join(parts),
    "a.JSONL.gz": lambda parts: b"".join(gzip.compress(part) + b"\0" * (len(part) % 9) for part in parts),
    "a.json.zst": lambda parts: b"".join(SKIPPABLE + zstandard.compress(part) for part in parts) + SKIPPABLE,
}
KEEPS = st.just({}) | st.dictionaries(
    st.just("n"),
    st.builds(Range, min=st.floats(-10, 10))
    | st.lists(st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXT, min_size=1, max_size=3),
    min_size=1,
)


def read(folder: Path, **source: Any) -> list[Any] | None:
    """The items of a source, or None where it is refused in a sentence."""
    try:
        return list(SourceReader("s", Source(**source)))
    except UserError as error:
        assert str(error).startswith("sources.s: ")
        return None


def can_be_written(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and not any("\ud800" <= c <= "\udfff" for c in text)


@given(
    rows=st.lists(ROWS, min_size=1, max_size=8),
    name=st.sampled_from(sorted(PACKINGS)),
    breaks=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    ascii_only=st.booleans(),
    keep=KEEPS,
)
def test_every_json_line_is_an_item_and_every_text_a_document(rows, name, breaks, mark, ascii_only, keep):
    lines = [json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        cut = len(lines) // 2
        parts = [
            mark + breaks.join(lines[:cut]) + breaks * bool(cut),
            mark + breaks.join(lines[cut:]) + breaks,
        ]
        (Path(folder) / name).write_bytes(PACKINGS[name](parts))
        found = read(Path(folder), jsonl=folder, keep=keep)
    texts = [row["text"] for row in rows if can_be_written(row.get("text"))]
    if found is None:
        assert not texts or keep, "refused although there is text in it"
        return
    assert len(found) == len(rows)
    if not keep:
        assert [item.text for item in found if isinstance(item, Document)] == texts


@given(
    lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=8),
    suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt", ".py"]),
)
def test_bytes_of_any_kind_are_items_or_refused(lines, suffix):
    content = b"\n".join([*lines, b'{"text": "one that is good"}'])
    kind = {".parquet": "parquet", ".txt": "text", ".py": "code"}.get(suffix, "jsonl")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        found = read(Path(folder), **{kind: str(path)})
    if found is not None and suffix == ".jsonl":
        assert any(isinstance(item, Document) and item.text == "one that is good" for item in found)


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)]
TIMES = [
    pa.date32(),
    pa.date64(),
    pa.timestamp("us"),
    pa.timestamp("ns", "UTC"),
    pa.time32("s"),
    pa.time64("us"),
]
OTHERS = [pa.null(), pa.bool_(), pa.decimal128(9, 3), pa.decimal256(40, 2), pa.duration("s")]
PLAIN = [*INTEGERS, *FLOATS, *TEXTS, *BYTES, *TIMES, *OTHERS]
NESTED = [pa.list_(pa.string()), pa.large_list(pa.int8()), pa.struct([("text", pa.string())])]
NESTED += [pa.map_(pa.string(), pa.int64()), pa.list_(pa.float32(), 2)]


def value_of(kind: Any, draw: Any) -> Any:
    """A value that a column of this type can have, or None."""
    if pa.types.is_null(kind) or draw(st.integers(0, 4)) == 0:
        return None
    if pa.types.is_boolean(kind):
        return draw(st.booleans())
    if kind in TEXTS:
        return draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
    if kind in BYTES:
        return draw(st.binary(min_size=4, max_size=4))
    if pa.types.is_decimal(kind):
        return Decimal(draw(st.integers(-999, 999))) / 100
    if pa.types.is_struct(kind):
        return {"text": draw(TEXT)}
    if pa.types.is_map(kind):
        return [("a", 1)]
    if kind in NESTED:
        return [1, 2] if kind != NESTED[0] else ["a", "b"]
    number = draw(st.integers(0, 100))
    return float(number) / 10 if kind in FLOATS else number


@st.composite
def columns(draw: Any, num_rows: int) -> Any:
    kind = draw(st.sampled_from([*PLAIN, *NESTED]))
    values = [value_of(kind, draw) for _ in range(num_rows)]
    if kind in (pa.float16(),):
        import numpy as np

        values = [None if value is None else np.float16(value) for value in values]
    array = pa.array(values, kind)
    if draw(st.booleans()) and kind in (*INTEGERS, *FLOATS, *TEXTS[:2], *BYTES[:2]):
        array = array.dictionary_encode()
    return array


@given(data=st.data(), num_rows=st.integers(1, 6), keep=KEEPS, twice=st.sampled_from([(), ("text",), ("n",)]))
def test_every_row_of_parquet_is_an_item_or_the_file_is_refused(data, num_rows, keep, twice):
    named = {"text": data.draw(columns(num_rows)), "n": data.draw(columns(num_rows))}
    names = [*named, *twice]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        try:
            pq.write_table(pa.Table.from_arrays([named[name] for name in names], names), path)
            stored = pq.read_table(path, columns=["n"]).num_rows if not twice else num_rows
        except pa.ArrowException:
            assume(False)
        found = read(Path(folder), parquet=str(path), keep=keep)
    if found is not None:
        assert len(found) == stored == num_rows
        assert not twice or (twice == ("n",) and not keep)
        if not keep:
            raw = [
                value.decode(errors="replace") if isinstance(value, bytes) else value
                for value in named["text"].to_pylist()
            ]
            texts = [value for value in raw if isinstance(value, str) and value.strip() and "�" not in value]
            documents = [item.text for item in found if isinstance(item, Document)]
            assert [text for text in documents if "�" not in text] == texts
