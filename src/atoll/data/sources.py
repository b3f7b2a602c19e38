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

from atoll.data import hub, kinds, rows, shapes
from atoll.data.folder import Found, IsWanted, files_below
from atoll.data.parquet import read_parquet
from atoll.data.rows import BadRow, Document, Item, Origin, Unwanted
from atoll.data.shapes import Shape
from atoll.data.splits import local_files
from atoll.data.stream import CountBytes, parts, whole
from atoll.errors import UserError
from atoll.given import BYTE_ORDER_MARK, expanded, named, refuse_pointer
from atoll.recipe import Source
from atoll.recipe.objective import Rows

SAMPLE_DIR = Path(__file__).parents[1] / "sample"
STDLIB_BYTES = 8_000_000  # enough for a demo, and prepared in seconds
# Folders of tests, other packages, and generated tables.
STDLIB_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data"}

ReadFile = Callable[[Path, Source, Shape, CountBytes], Iterator[Item]]


class Place(NamedTuple):
    """How far a source has been read: this many whole files, and this many rows, good or bad, of the next."""

    file: int
    row: int


START = Place(0, 0)


class SourceReader:
    """The rows of a source from a place on, in an order that depends only on its files' names and content."""

    def __init__(self, name: str, source: Source, start: Place = START, form: Rows = "stream") -> None:
        """`name`: the source's in the recipe. `form`: what the objective trains on.

        Raises UserError, naming the file, for a missing source.
        """
        self._name, self._source = name, source
        self._shape = shapes.of(form, name, source)
        self.place = start  # after the row that was yielded last
        found, read_file = _find(name, source)
        files = found.files
        self.left_out = found.left_out  # what else is in its folder, in sentences
        try:
            self.files = [(named(path), path.stat().st_size) for path in files]  # (path, size in bytes)
        except OSError as error:
            raise _unreadable(name, error.filename, error) from error
        self._num_bytes = sum(size for _, size in self.files)
        self._bytes_read = float(sum(size for _, size in self.files[: start.file]))
        # Each part yields its rows after the first so many.
        self._parts: list[Callable[[int], Iterator[Item]]] = [
            partial(self._rows, read_file, path) for path in files
        ]
        if not files:
            self._parts = [partial(hub.stream, name, source, self._shape)]

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
        bad: BadRow | None = None  # the first
        start = self.place
        for number in range(start.file, len(self._parts)):
            skip = start.row if number == start.file else 0
            for row, found in enumerate(self._parts[number](skip), skip + 1):
                self.place = Place(number, row)
                num_documents += isinstance(found, Document)
                num_unwanted += isinstance(found, Unwanted)
                bad = bad or (found if isinstance(found, BadRow) else None)
                yield found
            self.place = Place(number + 1, 0)
        if not num_documents and start == START:
            names = [file for file, _ in self.files] or [self._source.dataset]
            where = names[0] if len(names) == 1 else f"{len(names)} files"
            raise UserError(f"sources.{self._name}: {where}: {_why_no_text(num_unwanted, bad)}")

    def _rows(self, read_file: ReadFile, path: Path, skip: int) -> Iterator[Item]:
        try:
            yield from islice(read_file(path, self._source, self._shape, self._count_bytes), skip, None)
        except OSError as error:
            raise _unreadable(self._name, path, error) from error
        except UserError as error:
            raise UserError(f"sources.{self._name}: {error}") from error

    def _count_bytes(self, num_bytes: float) -> None:
        self._bytes_read += num_bytes


def _why_no_text(num_unwanted: int, bad: BadRow | None) -> str:
    """Why a source has no document: so many of its rows are unwanted, and `bad` is the first that is not."""
    if bad is None:
        return f"keep leaves out all {num_unwanted:,} rows" if num_unwanted else "there is no text in it"
    left_out = f" (keep leaves out {num_unwanted:,})" if num_unwanted else ""
    return f"no row of it can be used{left_out}; the first that cannot is {bad.origin}: {bad.reason}"


def _unreadable(name: str, path: str | Path, error: OSError) -> UserError:
    return UserError(f"sources.{name}: {named(path)}: cannot be read: {error.strerror or error}")


def _find(name: str, source: Source) -> tuple[Found, ReadFile]:
    """A source's files, and the function that reads one; no files for a dataset of the hub.

    Raises UserError, naming the source, where there are none.
    """
    try:
        if source.code == "stdlib":
            return Found(_stdlib_files()), _read_code
        if source.code is not None:
            return _code_files(source.code, source.suffix), _read_code
        if source.text is not None:
            return _files(_packaged(source.text), kinds.TEXT), _read_text
        if source.jsonl is not None:
            return _files(_packaged(source.jsonl), kinds.JSON_LINES), rows.read_jsonl
        if source.parquet is not None:
            return _files(source.parquet, kinds.PARQUET), read_parquet
        return _dataset(source), _read_table
    except UserError as error:
        raise UserError(f"sources.{name}: {error}") from error
    except OSError as error:  # a name that is too long, a folder above that may not be entered
        where = next(str(getattr(source, kind)) for kind in source.kinds)
        raise _unreadable(name, error.filename or where, error) from error


def _dataset(source: Source) -> Found:
    folder = expanded(source.dataset or "")
    if not folder.is_dir():
        return Found()
    found = local_files(folder, source)
    if not found.files:
        wanted = f"data_files = {source.data_files!r}"
        if source.data_files is None:
            wanted = f"config {source.config!r}, split {source.split!r}"
        raise UserError(
            "; ".join([f"{named(folder)}: no .jsonl or .parquet file for {wanted}", *found.left_out])
        )
    return found


def _files(where: str, suffixes: tuple[str, ...]) -> Found:
    """The file `where`, or the files with these suffixes in the folder `where` and below.

    Raises UserError where there are none.
    """
    return _files_or_one(where, suffixes[0], lambda path: kinds.ends_with(path, suffixes), tells_others=True)


def _code_files(where: str, suffix: str) -> Found:
    """The same for code, whose suffix was chosen: a source tree is full of other files."""
    return _files_or_one(where, suffix, lambda path: path.name.endswith(suffix), tells_others=False)


def _files_or_one(where: str, suffix: str, is_wanted: IsWanted, *, tells_others: bool) -> Found:
    path = expanded(where)
    if path.is_dir():
        found = files_below(path, is_wanted, tells_others=tells_others)
        if not found.files:
            missing = f"{named(path)}: no {suffix} file in this folder"
            raise UserError("; ".join([missing, *found.left_out]))
        return found
    if not path.exists():
        raise UserError(f"{named(path)}: no such file or folder")
    if not path.is_file():
        raise UserError(f"{named(path)}: neither a file nor a folder; sources are read several times")
    return Found([path])


def _packaged(path: str) -> str:
    """The path that is meant, where it may be "package:NAME". Raises UserError for what does not ship."""
    kind, _, package = path.partition(":")
    if kind != "package":
        return path
    known = sorted(path.name for path in SAMPLE_DIR.iterdir() if path.is_dir())
    if package not in known:
        raise UserError(f"nothing named {package!r} ships with atoll; there is: {', '.join(known)}")
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


def _read_table(path: Path, source: Source, shape: Shape, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the rows of a parquet or JSON lines file, which its suffix tells apart."""
    is_parquet = kinds.ends_with(path, kinds.PARQUET)
    return (read_parquet if is_parquet else rows.read_jsonl)(path, source, shape, count_bytes)


def _read_code(path: Path, source: Source, shape: Shape, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the whole file as one document; a blank one, as `__init__.py` often is, is left out."""
    data = path.read_bytes()
    refuse_pointer(path, data)
    yield from _documents(path, iter([data.removeprefix(BYTE_ORDER_MARK)]))
    count_bytes(len(data))


def _read_text(path: Path, source: Source, shape: Shape, count_bytes: CountBytes) -> Iterator[Item]:
    """Yield the parts between separators as documents, or the whole file; blank ones are left out."""
    if source.separator is None:
        pieces = iter([whole(path, count_bytes).removeprefix(BYTE_ORDER_MARK)])
    else:
        pieces = parts(path, source.separator, count_bytes)
    yield from _documents(path, pieces)


def _documents(path: Path, pieces: Iterator[bytes]) -> Iterator[Item]:
    for number, piece in enumerate(pieces, 1):
        item = rows.decoded(piece, Origin(named(path), number))
        if isinstance(item, BadRow) or item.text.strip():
            yield item
