"""Files as other programs write them: padded, with skippable frames, byte-order marks, CRLF, pointers."""

import gzip
import json
import struct

import pytest

from atoll.data import stream
from atoll.data.rows import BadRow, Document
from atoll.data.sources import SourceReader
from atoll.errors import UserError
from atoll.recipe import Range, Source

zstandard = pytest.importorskip("zstandard")
LINES = b"".join(json.dumps({"text": f"row {number}"}).encode() + b"\n" for number in range(20))
TEXTS = [f"row {number}" for number in range(20)]
SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"notes"
BOM = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


def read(path, **more):
    kind = "text" if ".txt" in path.name else "code" if path.suffix == ".py" else "jsonl"
    return list(SourceReader("s", Source(**{kind: str(path)}, **more)))


def texts(path, **more):
    found = read(path, **more)
    assert all(isinstance(item, Document) for item in found), found
    return [item.text for item in found]


def long_window(content: bytes, log: int) -> bytes:
    """A zstd frame of one raw block that asks for a window of 2**log bytes."""
    header = bytes([0, (log - 10) << 3])
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return struct.pack("<I", 0xFD2FB528) + header + block + content


PACKED = {
    "zeros behind gzip": ("a.jsonl.gz", gzip.compress(LINES) + b"\0" * 512),
    "zeros between members": (
        "a.jsonl.gz",
        gzip.compress(LINES[:50]) + b"\0" * 700_000 + gzip.compress(LINES[50:]),
    ),
    "a skippable frame at the head": ("a.jsonl.zst", SKIPPABLE + zstandard.compress(LINES)),
    "between frames": (
        "a.jsonl.zst",
        zstandard.compress(LINES[:50]) + SKIPPABLE * 2 + zstandard.compress(LINES[50:]),
    ),
    "at the end": ("a.jsonl.zst", zstandard.compress(LINES) + SKIPPABLE),
    "a window of 2 GiB": ("a.jsonl.zst", long_window(LINES, 31)),
    "capital suffixes": ("A.JSONL.GZ", gzip.compress(LINES)),
    "json lines called json": ("a.json.gz", gzip.compress(LINES)),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("read_bytes", [7, 1 << 18])
def test_compressed_files_are_read_as_other_programs_write_them(tmp_path, monkeypatch, name, read_bytes):
    monkeypatch.setattr(stream, "READ_BYTES", read_bytes)
    file, content = PACKED[name]
    content = content if read_bytes > 100 else content.replace(b"\0" * 700_000, b"\0" * 70)
    (tmp_path / file).write_bytes(content)
    assert texts(tmp_path) == TEXTS


def test_a_window_that_no_program_can_be_asked_for_is_refused_without_being_called_damage(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(long_window(LINES, 41))
    with pytest.raises(UserError, match=r"a.jsonl.zst: .*cannot be decompressed: .*memory"):
        read(tmp_path)


@pytest.mark.parametrize("content", [BOM + LINES, LINES[:18] + BOM + LINES[18:], BOM + LINES + BOM])
def test_byte_order_marks_cost_no_row(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content))
    assert texts(tmp_path) == TEXTS * 2


@pytest.mark.parametrize("more", [{}, {"separator": "\f"}])
def test_a_byte_order_mark_is_not_text(tmp_path, more):
    for name in ("a.txt", "b.py"):
        (tmp_path / name).write_bytes(BOM + "größer".encode())
        assert texts(tmp_path / name, **(more if name == "a.txt" else {})) == ["größer"]
    (tmp_path / "a.txt").write_bytes(BOM)
    with pytest.raises(UserError, match="there is no text in it"):
        read(tmp_path / "a.txt", **more)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_wide_encodings_are_refused_by_name(tmp_path, encoding):
    text = (LINES.decode() if encoding != "utf-16-be" else "\ufeff" + LINES.decode()).encode(encoding)
    name = encoding[:6].upper()
    (tmp_path / "a.jsonl").write_bytes(text)
    for more in ({}, {"skip_bad_rows": True}):
        with pytest.raises(UserError, match=f"a.jsonl: {name}, as its byte-order mark says"):
            read(tmp_path / "a.jsonl", **more)
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "b.txt").write_text("fine")
    bad, fine = SourceReader("s", Source(text=str(tmp_path)))
    assert isinstance(bad, BadRow)
    assert name in bad.reason
    assert isinstance(fine, Document)


@pytest.mark.parametrize("breaks", ["\n", "\r\n"])
@pytest.mark.parametrize("read_bytes", [1, 5, 1 << 18])
@pytest.mark.parametrize("separator", ["\n----\n", "\r\n----\r\n", "\n\n", "--\n", "\n"])
def test_a_separator_is_found_in_files_of_either_line_break(
    tmp_path, monkeypatch, breaks, read_bytes, separator
):
    monkeypatch.setattr(stream, "READ_BYTES", read_bytes)
    monkeypatch.setattr(stream, "HEAD_BYTES", 1)
    written = separator.replace("\r\n", "\n").replace("\n", breaks)
    (tmp_path / "a.txt").write_bytes(written.join(["one", "two", "three"]).encode())
    assert texts(tmp_path / "a.txt", separator=separator) == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.txt", "a.txt.gz", "a.py"])
def test_pointers_of_git_lfs_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(UserError, match=rf"{name}: a Git LFS pointer .*git lfs pull"):
        read(tmp_path / name, skip_bad_rows=True)


JSON_ROWS = {
    "NaN": '{"text": "kept", "score": NaN}',
    "infinities": '{"score": [-Infinity, Infinity], "text": "kept"}',
    "an integer beyond 64 bits": '{"text": "kept", "id": 99999999999999999999999999999999}',
    "one beyond Python's digits": '{"text": "kept", "id": -' + "9" * 5000 + "}",
    "half a surrogate pair elsewhere": '{"text": "kept", "raw": "\\ud800"}',
}


@pytest.mark.parametrize("row", JSON_ROWS)
def test_what_is_odd_in_another_column_costs_no_row(tmp_path, row):
    (tmp_path / "a.jsonl").write_text(JSON_ROWS[row])
    assert texts(tmp_path) == ["kept"]


def test_bytes_that_are_no_utf_8_cost_a_row_only_in_its_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "kept", "raw": "\xff"}\n{"text": "lost\xff", "raw": ""}')
    kept, lost = read(tmp_path)
    assert (kept.text, lost.reason, lost.origin.row) == ("kept", "not UTF-8", 2)


def test_a_number_that_only_the_lenient_reader_knows_can_be_kept_by(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(f'{{"text": "{value}", "n": {value}}}' for value in ("NaN", 10**30, "-Infinity"))
    )
    found = read(tmp_path / "a.jsonl", keep={"n": Range(min=5.0)})
    assert [item.text for item in found if isinstance(item, Document)] == [str(10**30)]


def test_whole_numbers_are_kept_by_to_the_last_digit(tmp_path):
    rows = [f'{{"text": "{number}", "n": {number}}}' for number in range(2**53, 2**53 + 4)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    found = read(tmp_path / "a.jsonl", keep={"n": Range(min=2**53 + 1, max=2**53 + 1)})
    assert [item.text for item in found if isinstance(item, Document)] == [str(2**53 + 1)]
