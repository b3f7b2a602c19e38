"""Raw text, document by document, each with the file and row it came from: plain text, code, and rows of tables.

A reader is a generator with bounded memory and a fixed order. It yields a `BadRow` for what it cannot use, and raises
UserError for what cannot be read at all; `prepare` decides about bad rows.
"""

import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from atoll.data import rows
from atoll.data.rows import BadRow, Document, Item, Origin
from atoll.errors import UserError
from atoll.recipe import Source

SAMPLE_DIR = Path(__file__).parents[1] / "sample"
STDLIB_BYTES = 8_000_000  # enough for a demo, seconds to prepare
STDLIB_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data"}  # tests, generated tables


def read(name: str, source: Source) -> Iterator[Item]:
    """All documents of a source, in an order that depends only on its files' names and content.

    Raises UserError, naming the file, for a source that is missing, empty, truncated or of another form.
    """
    if source.code == "stdlib":
        files, reader = _stdlib_files(), _read_code
    elif source.code is not None:
        files, reader = _files(name, source.code, (source.suffix,)), _read_code
    elif source.text is not None:
        files, reader = _files(name, _text_place(name, source.text), (".txt",)), _read_text
    elif source.jsonl is not None:
        files, reader = _files(name, source.jsonl, rows.JSONL), rows.read_jsonl
    elif source.parquet is not None:
        files, reader = _files(name, source.parquet, (".parquet",)), rows.read_parquet
    else:
        files, reader = _files(name, source.dataset or "", (*rows.JSONL, ".parquet")), rows.read_table
    return _read_each(name, files, reader, source)


def _read_each(
    name: str, files: list[Path], reader: Callable[[Path, Source], Iterator[Item]], source: Source
) -> Iterator[Item]:
    empty = True
    for path in files:
        try:
            for item in reader(path, source):
                empty = empty and isinstance(item, BadRow)
                yield item
        except OSError as error:
            raise UserError(f"sources.{name}: {path}: cannot be read: {error.strerror or error}") from error
    if empty:
        where = files[0] if len(files) == 1 else f"{len(files)} files"
        raise UserError(f"sources.{name}: {where}: there is no text in it")


def _files(name: str, where: str, suffixes: tuple[str, ...]) -> list[Path]:
    """A file itself, or a folder's files by suffix, sorted by path."""
    path = Path(where).expanduser()
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
        if not files:
            raise UserError(f"sources.{name}: {path}: no {' or '.join(suffixes)} file in this folder")
        return sorted(files, key=lambda file: file.relative_to(path).as_posix())
    if not path.exists():
        raise UserError(f"sources.{name}: {path}: no such file or folder")
    return [path]


def _text_place(name: str, text: str) -> str:
    kind, _, package = text.partition(":")
    if kind != "package":
        return text
    known = sorted(path.name for path in SAMPLE_DIR.iterdir() if path.is_dir())
    if package not in known:
        raise UserError(f"sources.{name}: no text named {package!r} ships with atoll; there is: {', '.join(known)}")
    return str(SAMPLE_DIR / package)


def _stdlib_files() -> list[Path]:
    """The interpreter's own modules, without tests and tables, in order of path: the first `STDLIB_BYTES` of them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in STDLIB_LEFT_OUT]
        found += [Path(folder) / name for name in names if name.endswith(".py")]
    files: list[Path] = []
    budget = STDLIB_BYTES
    for path in sorted(found, key=lambda path: path.relative_to(root).as_posix()):
        budget -= path.stat().st_size
        if budget < 0:
            break
        if _is_utf8(path):
            files.append(path)
    return files


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_code(path: Path, source: Source) -> Iterator[Item]:
    """A file is a document; empty ones (`__init__.py`) are usual and passed over."""
    item = rows.decoded(path.read_bytes(), Origin(str(path), 1))
    if isinstance(item, BadRow) or item.text.strip():
        yield item


def _read_text(path: Path, source: Source) -> Iterator[Item]:
    """A file is a document, or several with a separator between them; blank ones are passed over."""
    if source.separator is None:
        pieces = iter([path.read_bytes()])
    elif source.separator:
        pieces = rows.split_stream(rows.chunks(path), source.separator.encode())
    else:
        raise UserError(f"{path}: the separator of documents is empty; leave it out where a file is a document")
    for number, piece in enumerate(pieces, 1):
        item = rows.decoded(piece, Origin(str(path), number))
        if isinstance(item, BadRow) or item.text.strip():
            yield item


__all__ = ["BadRow", "Document", "Item", "Origin", "read"]
