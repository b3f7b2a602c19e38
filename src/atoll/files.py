"""Files that are either whole or absent: temporary name, fsync, rename. And one lock per directory."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from blake3 import blake3

from atoll.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Generator[IO[bytes]]:
    """A binary file that appears at `path` only when the block ends well; on any error nothing is left behind.

    Raises UserError when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
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
        for file in sorted(temporary.rglob("*")):
            with open(os.open(file, os.O_RDONLY)) as handle:
                os.fsync(handle.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` so that `path` holds all of it or what it held before, also after a power cut."""
    with atomic_file(path) as file:
        file.write(data)


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
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

    def release(self) -> None:
        self._file.close()
