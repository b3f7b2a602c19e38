"""The bytes of a source's files: decompressed, and cut at separators. Only this file imports zstandard."""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from atoll.errors import UserError
from atoll.given import BYTE_ORDER_MARK, HEAD_BYTES, named, refuse_pointer, wide_encoding

READ_BYTES = 1 << 18
# 2 GiB, the most that zstd's own program can write (`--long=31`): every file that it made can be read. A
# window takes memory only as it fills, so never more than the file's content.
ZSTD_WINDOW_BYTES = 1 << 31

CountBytes = Callable[[float], None]  # called with the number of file bytes read since the last call


def whole(path: Path, count_bytes: CountBytes) -> bytes:
    """A file's content, decompressed where the suffix says so. Raises UserError like `chunks`."""
    return b"".join(chunks(path, count_bytes))


def parts(path: Path, separator: str, count_bytes: CountBytes) -> Iterator[bytes]:
    """Yield the parts of a file's content between separators, each without a byte-order mark at its head.

    A line break in the separator is found in files of either kind, those with CRLF too. Raises UserError like
    `chunks`, and for a file that is UTF-16 or UTF-32.
    """
    pieces = chunks(path, count_bytes)
    first = next(pieces, b"")
    if encoding := wide_encoding(first):
        raise UserError(f"{named(path)}: {encoding}, as its byte-order mark says; convert it to UTF-8")
    for part in split_stream(_chained(first, pieces), separator):
        yield part.removeprefix(BYTE_ORDER_MARK)


def chunks(path: Path, count_bytes: CountBytes) -> Iterator[bytes]:
    """Yield a file's content piece by piece, decompressed where the suffix says so; no piece is empty.

    The first piece has at least `HEAD_BYTES`, where the content has. Raises UserError for a compressed file
    that is damaged or truncated, and for a pointer of Git LFS.
    """
    with path.open("rb") as file:
        refuse_pointer(path, file.read(HEAD_BYTES))
        file.seek(0)
        pieces = _counted(iter(lambda: file.read(READ_BYTES), b""), count_bytes)
        match path.suffix.lower():
            case ".gz":
                pieces = _decompressed(path, pieces, lambda: zlib.decompressobj(wbits=31), zlib.error)
            case ".bz2":
                pieces = _decompressed(path, pieces, bz2.BZ2Decompressor, OSError)
            case ".xz":
                pieces = _decompressed(path, pieces, lzma.LZMADecompressor, lzma.LZMAError)
            case ".zst":
                import zstandard

                decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
                pieces = _decompressed(path, pieces, decompressor.decompressobj, zstandard.ZstdError)
            case _:
                pass
        head = b""
        for piece in pieces:
            head += piece
            if len(head) >= HEAD_BYTES:
                break
        if head:
            yield head
        yield from filter(None, pieces)


def split_stream(pieces: Iterator[bytes], separator: str) -> Iterator[bytes]:
    """Yield the parts between separators; holds one part and one piece in memory.

    A line break in the separator stands for LF and for CRLF.
    """
    lines = [re.escape(line.encode()) for line in separator.replace("\r\n", "\n").split("\n")]
    # A pattern that began with an optional CR would be six times as slow, so that one is cut off below.
    begins_with_break = len(lines) > 1 and not lines[0]
    pattern = re.compile((rb"\n" if begins_with_break else b"") + rb"\r?\n".join(lines[begins_with_break:]))
    longest = len(separator.encode()) + len(lines) - 1
    buffer = bytearray()
    for piece in pieces:
        search_from = max(len(buffer) - longest + 1, 0)  # no separator begins before this
        buffer += piece
        start = 0
        while found := pattern.search(buffer, max(start, search_from)):
            part = bytes(buffer[start : found.start()])
            yield part.removesuffix(b"\r") if begins_with_break else part
            start = found.end()
        del buffer[:start]
    yield bytes(buffer)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _counted(raw: Iterator[bytes], count_bytes: CountBytes) -> Iterator[bytes]:
    for data in raw:
        yield data
        count_bytes(len(data))


def _decompressed(
    path: Path, raw: Iterator[bytes], start: Any, error_type: type[Exception]
) -> Iterator[bytes]:
    """Yield the content of concatenated compressed members; zeros behind a member are padding.

    `start` makes a decompressor for one member, which raises `error_type` for damaged data. Raises UserError
    for damaged data, and when the file ends within a member.
    """
    member, num_members = None, 0
    try:
        for data in raw:
            while data := data.lstrip(b"\0") if num_members and member is None else data:
                if member is None:
                    member, num_members = start(), num_members + 1
                yield member.decompress(data)
                data, member = (member.unused_data, None) if member.eof else (b"", member)
    except (error_type, MemoryError) as error:
        raise UserError(f"{named(path)}: damaged, or it cannot be decompressed: {error}") from error
    if member is not None:
        raise UserError(f"{named(path)}: truncated: it ends in the middle of its compressed data")
