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
def atomic_path(path: Path) -> Generator[Path]:
    """A temporary path to write to; it becomes `path` only when the block ends well, else nothing is left behind.

    Raises UserError when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def sweep(directory: Path) -> None:
    """Remove what a killed process left half-written in `directory`, which must be ours alone: temporary names."""
    for path in directory.rglob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def reserve(path: Path, size: int) -> None:
    """Make `path` a file of `size` bytes whose space is really there: a full disk would kill a mapping of it later.

    Raises UserError when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if os.fstat(handle).st_size != size:
            os.truncate(handle, size)
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
    except OSError as error:
        os.truncate(handle, 0)
        raise disk_error(path, error) from error
    finally:
        os.close(handle)


def digest_file(path: Path) -> str:
    """BLAKE3 of a file, as hex."""
    return blake3().update_mmap(path).hexdigest() if path.stat().st_size else blake3(b"").hexdigest()


def disk_error(path: Path, error: OSError) -> Exception:
    """A UserError where the cause is a full disk or missing permission, else the error itself."""
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return UserError(f"{path}: no space left on the disk; free some and start again (nothing half-written was left)")
    if isinstance(error, PermissionError):
        return UserError(f"{path}: not permitted to write here; choose another directory")
    return error


class DirectoryLock:
    """An exclusive lock on a directory, held by this process until `release` or its death (flock: nothing to clean)."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._file = (path / ".lock").open("a")
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


def _fsync(path: Path) -> None:
    """Make a file's bytes, or a directory's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
