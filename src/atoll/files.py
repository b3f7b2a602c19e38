"""Files that are either whole or absent: temporary name, fsync, rename. And one lock per directory."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from atoll.errors import UserError


@contextmanager
def atomic_path(path: Path, synced: bool = True) -> Generator[Path]:
    """A temporary path to write to; it becomes `path` only when the block ends well, else nothing is left
    behind.

    Not `synced`, it may be absent, or not what was written, after a power cut. Raises UserError when the disk
    is full.
    """
    _make_parent(path)
    temporary = _temporary(path)
    try:
        yield temporary
        if synced:
            _fsync(temporary)
        temporary.replace(path)
        if synced:
            _fsync(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Generator[Path]:
    """A directory that appears at `path` only when the block ends well; every file in it is fsynced first.

    Raises UserError when the disk is full; OSError when `path` exists and is not an empty directory.
    """
    _make_parent(path)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for part in [*sorted(temporary.rglob("*")), temporary]:
            _fsync(part)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` so that `path` holds all of it or what it held before, also after a power cut."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """As `write_atomic`, but for power cuts: for what is checked wherever it is read.

    A sync may wait for all that the machine has still to write, for seconds.
    """
    with atomic_path(path, synced=False) as temporary:
        temporary.write_bytes(data)


def sweep(directory: Path) -> None:
    """Remove what a killed process left half-written in `directory`, which must be ours alone: temporary
    names.
    """
    for path in directory.rglob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def reserve(path: Path, size: int) -> None:
    """Make `path` a file of `size` bytes whose space is really there: a full disk would kill a mapping of it
    later.

    Raises UserError when the disk is full.
    """
    _make_parent(path)
    try:
        path.touch()
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size != size:
                _allocate(file.fileno(), size)
    except OSError as error:
        raise disk_error(path, error) from error


def digest_file(path: Path) -> str:
    """BLAKE3 of a file, as hex."""
    return blake3().update_mmap(path).hexdigest() if path.stat().st_size else blake3(b"").hexdigest()


def disk_error(path: Path, error: OSError) -> Exception:
    """A UserError where the cause is a full disk, or that `path` may not be written, else the error
    itself.
    """
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return UserError(
            f"{path}: no space left on the disk; free some and start again (nothing half-written was left)"
        )
    if isinstance(error, PermissionError) and _concerns(path, error):
        return UserError(f"{path}: not permitted to write here; choose another directory")
    return error


class DirectoryLock:
    """An exclusive lock on a directory, held by this process until `release` or its death (flock: nothing to
    clean).
    """

    def __init__(self, path: Path) -> None:
        lock = path / ".lock"
        _make_parent(lock)
        try:
            self._file = lock.open("a")
        except OSError as error:
            raise disk_error(lock, error) from error
        self._path = path

    def acquire(self) -> bool:
        """Whether the lock is ours now; never waits."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self._file.close()


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _allocate(handle: int, size: int) -> None:
    """The size is the sign that the space is there, so it must not come first."""
    os.truncate(handle, 0)
    try:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        os.truncate(handle, size)
    except OSError:
        os.truncate(handle, 0)
        raise


def _concerns(path: Path, error: OSError) -> bool:
    """Whether an error is about writing `path`, and not about something else that was read meanwhile."""
    if not isinstance(error.filename, str | os.PathLike):
        return True  # of an open file: only ours are written
    where = Path(error.filename)
    return where in (path, *path.parents) or any(
        ours in (where, *where.parents) for ours in (path, _temporary(path))
    )


def _fsync(path: Path) -> None:
    """Make a file's bytes, or a directory's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
