"""A recipe's sources read document by document: plain text, code and rows of tables, each with file and row.

A reader is a generator with bounded memory and a fixed order. It yields a `BadRow` for a row that it cannot
use, and `prepare` decides what to do about it. It raises UserError for a file that cannot be read at all.
"""

import os
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from atoll.data import hub, rows
from atoll.data.rows import BadRow, CountBytes, Document, Item, Origin, Unwanted
from atoll.errors import UserError
from atoll.recipe import Source

SAMPLE_DIR = Path(__file__).parents[1] / "sample"
STDLIB_BYTES = 8_000_000  # enough for a demo, and prepared in seconds
# Folders of tests, other packages, and generated tables.
STDLIB_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data"}

ReadFile = Callable[[Path, Source, CountBytes], Iterator[Item]]


class Place(NamedTuple):
    """How far a source has been read: this many whole files, and this many rows, good or bad, of the next."""

    file: int
    row: int


START = Place(0, 0)


class SourceReader:
    """The rows of a source from a place on, in an order that depends only on its files' names and content."""

    def __init__(self, name: str, source: Source, start: Place = START) -> None:
        """`name`: the source's in the recipe. Raises UserError, naming the file, for a missing source."""
        self._name, self._source = name, source
        self.place = start  # after the row that was yielded last
        files, read_file = _find(name, source)
        self.files = [(str(path), path.stat().st_size) for path in files]  # (path, size in bytes)
        self._num_bytes = sum(size for _, size in self.files)
        self._bytes_read = float(sum(size for _, size in self.files[: start.file]))
        # Each part yields its rows after the first so many.
        self._parts: list[Callable[[int], Iterator[Item]]] = [
            partial(self._rows, read_file, path) for path in files
        ]
        if not files:
            self._parts = [partial(hub.stream, name, source)]

    @property
    def fraction(self) -> float | None:
        """The fraction of the files' bytes that has been read; None for the hub, which tells no size."""
        return min(self._bytes_read / self._num_bytes, 1.0) if self._num_bytes else None

    def __iter__(self) -> Iterator[Item]:
        """Yield the rows from `place` on, and advance `place`.

        Raises UserError for a file that cannot be read, is truncated or has another format, and when the
        whole source holds no document.
        """
        num_documents = num_unwanted = 0
        start = self.place
        for number in range(start.file, len(self._parts)):
            skip = start.row if number == start.file else 0
            for row, found in enumerate(self._parts[number](skip), skip + 1):
                self.place = Place(number, row)
                num_documents += isinstance(found, Document)
                num_unwanted += isinstance(found, Unwanted)
                yield found
            self.place = Place(number + 1, 0)
        if not num_documents and start == START:
            names = [file for file, _ in self.files] or [self._source.dataset]
            where = names[0] if len(names) == 1 else f"{len(names)} files"
            why = f"keep leaves out all {num_unwanted:,} rows" if num_unwanted else "there is no text in it"
            raise UserError(f"sources.{self._name}: {where}: {why}")

    def _rows(self, read_file: ReadFile, path: Path, skip: int) -> Iterator[Item]:
        try:
            yield from islice(read_file(path, self._source, self._count_bytes), skip, None)
        except OSError as error:
            raise UserError(
                f"sources.{self._name}: {path}: cannot be read: {error.strerror or error}"
            ) from error

    def _count_bytes(self, num_bytes: float) -> None:
        self._bytes_read += num_bytes


def _find(name: str, source: Source) -> tuple[list[Path], ReadFile]:
    """A source's files, and the function that reads one; no files for a dataset of the hub."""
    if source.code == "stdlib":
        return _stdlib_files(), _read_code
    if source.code is not None:
        return _files(name, source.code, (source.suffix,)), _read_code
    if source.text is not None:
        return _files(name, _text_path(name, source.text), (".txt",)), _read_text
    if source.jsonl is not None:
        return _files(name, source.jsonl, rows.JSONL), rows.read_jsonl
    if source.parquet is not None:
        return _files(name, source.parquet, (".parquet",)), rows.read_parquet
    folder = Path(source.dataset or "").expanduser()
    if not folder.is_dir():
        return [], rows.read_table
    if files := hub.local_files(folder, source):
        return files, rows.read_table
    wanted = source.data_files or f"config {source.config!r}, split {source.split!r}"
    raise UserError(f"sources.{name}: {folder}: no {' or '.join(hub.SUFFIXES)} file for {wanted}")


def _files(name: str, where: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The file `where`, or the files with these suffixes in the folder `where` and below, sorted by path.

    Raises UserError where there are none.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
        if not files:
            raise UserError(f"sources.{name}: {path}: no {' or '.join(suffixes)} file in this folder")
        return sorted(files, key=lambda file: file.relative_to(path).as_posix())
    if not path.exists():
        raise UserError(f"sources.{name}: {path}: no such file or folder")
    return [path]


def _text_path(name: str, text: str) -> str:
    """The path that a source's `text` means. Raises UserError for a text that does not ship with atoll."""
    kind, _, package = text.partition(":")
    if kind != "package":
        return text
    known = sorted(path.name for path in SAMPLE_DIR.iterdir() if path.is_dir())
    if package not in known:
        raise UserError(
            f"sources.{name}: no text named {package!r} ships with atoll; there is: {', '.join(known)}"
        )
    return str(SAMPLE_DIR / package)


def _stdlib_files() -> list[Path]:
    """The interpreter's own UTF-8 modules, sorted by path, up to `STDLIB_BYTES` of them."""
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


def _read_code(path: Path, source: Source, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the whole file as one document; a blank one, as `__init__.py` often is, is left out."""
    data = path.read_bytes()
    item = rows.decoded(data, Origin(str(path), 1))
    if isinstance(item, BadRow) or item.text.strip():
        yield item
    count_bytes(len(data))


def _read_text(path: Path, source: Source, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the parts between separators as documents, or the whole file; blank ones are left out."""
    if source.separator is None:
        pieces = iter([b"".join(rows.chunks(path, count_bytes))])
    else:
        pieces = rows.split_stream(rows.chunks(path, count_bytes), source.separator.encode())
    for number, piece in enumerate(pieces, 1):
        item = rows.decoded(piece, Origin(str(path), number))
        if isinstance(item, BadRow) or item.text.strip():
            yield item
