"""Files that are either whole or absent (temporary name, fsync, rename), and one lock per directory.

What a process asks of its disk beyond reading and writing stands in `Disk`; a simulated process has a disk of
its own (`atoll.simulate`).
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from blake3 import blake3

from atoll.errors import DiskError, UserError

FULL_BYTES = 1 << 16  # with less room than this, a library that fails to write has met a full disk
LOCK_NAME = ".lock"


class Disk:
    """What a process asks of its disk."""

    def writing(self, path: Path) -> None:
        """Bytes are about to be written to `path`. Raises OSError when they cannot be."""

    def sync(self, path: Path) -> None:
        """Make a file's bytes, or a directory's entries, survive a power cut."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK: ContextVar[Disk] = ContextVar("disk", default=Disk())  # noqa: B039 (it has no state)


@contextmanager
def atomic_path(path: Path, synced: bool = True) -> Generator[Path]:
    """Yield a temporary path; the file written to it becomes `path` only when the block ends without error.

    After an error nothing is left behind, and `path` is what it was. Without `synced` the file may be absent
    or damaged after a power cut. Raises DiskError when the disk is full or `path` may not be written.
    """
    _make_parent(path)
    temporary = _temporary(path)
    try:
        DISK.get().writing(temporary)
        yield temporary
        if synced:
            DISK.get().sync(temporary)
        temporary.replace(path)
        if synced:
            DISK.get().sync(path.parent)
    except Exception as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Generator[Path]:
    """Yield a temporary directory, which becomes `path` only when the block ends without error.

    Every file in it is fsynced first. Raises DiskError when the disk is full or `path` may not be written,
    and OSError when `path` exists and is not an empty directory.
    """
    _make_parent(path)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for part in [*sorted(temporary.rglob("*")), temporary]:
            DISK.get().sync(part)
        temporary.replace(path)
        DISK.get().sync(path.parent)
    except Exception as error:
        raise disk_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` so that `path` holds all of it or what it held before, also after a power cut."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_private(path: Path, data: bytes) -> None:
    """As `write_atomic`, a file that only its owner can read: a key, or a ticket."""
    old = os.umask(0o077)
    try:
        write_atomic(path, data)
    finally:
        os.umask(old)


def open_to_readers(path: Path) -> None:
    """Give a file the permissions that the umask leaves to new ones: some libraries make theirs private."""
    example = path.with_name(f".{path.name}.mode.tmp")
    example.touch()
    path.chmod(example.stat().st_mode)
    example.unlink()


def write_unsynced(path: Path, data: bytes | memoryview) -> None:
    """Write `data` so that `path` holds all of it or what it held before, except after a power cut.

    For files that are verified whenever they are read. An fsync may take seconds: it can wait for everything
    that the machine has yet to write.
    """
    with atomic_path(path, synced=False) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files and directories that killed processes left anywhere under `directory`.

    No other process may be writing there: its temporary files would be removed too.
    """
    for path in directory.rglob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def reserve(path: Path, num_bytes: int) -> None:
    """Make `path` a file of `num_bytes` bytes whose disk space is allocated.

    A file that has this size already is kept as it is. Without the allocation a full disk would kill the
    process later, when it writes to a mapping of the file. Raises DiskError when the disk is full or `path`
    may not be written.
    """
    _make_parent(path)
    is_new = not path.exists()
    try:
        DISK.get().writing(path)
        path.touch()
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size != num_bytes:
                _allocate(file.fileno(), num_bytes)
    except OSError as error:
        if is_new:
            path.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def digest_file(path: Path) -> str:
    """The BLAKE3 of a file's bytes, as hex."""
    return blake3().update_mmap(path).hexdigest() if path.stat().st_size else blake3(b"").hexdigest()


def disk_error(path: Path, error: Exception) -> Exception:
    """A DiskError if `error` means a full disk or that `path` may not be written, else `error` itself."""
    if _means_full(path, error):
        return DiskError(
            f"{path}: no space left on the disk; free some and start again (no half-written file was left)"
        )
    if not isinstance(error, OSError) or not _concerns(path, error):
        return error
    if isinstance(error, PermissionError):
        return DiskError(f"{path}: not permitted to write here; choose another directory")
    if error.errno == errno.EROFS:
        return DiskError(f"{path}: this file system is read-only; choose another directory")
    if error.errno == errno.ENAMETOOLONG:
        return DiskError(f"{path}: this name is too long for the file system; choose another directory")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return DiskError(f"{path}: a part of this path is a file, not a directory; choose another directory")
    if error.errno == errno.EISDIR:
        return DiskError(f"{path}: a directory is where this file should be; remove it, or choose another")
    if error.errno == errno.ELOOP:
        return DiskError(f"{path}: a part of this path is a link that leads to itself; mend or remove it")
    if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
        return DiskError(
            f"{path}: the file system here cannot do what is needed ({error.strerror}); choose a directory "
            "on a local disk"
        )
    return error


class DirectoryLock:
    """An exclusive lock on a directory, held from `acquire` until `release` or the death of this process.

    It is an flock on a file in the directory, so a killed process leaves nothing to clean up.
    """

    def __init__(self, path: Path) -> None:
        """Create the directory and its lock file. Raises DiskError when the disk is full or read-only."""
        lock = path / LOCK_NAME
        _make_parent(lock)
        try:
            self._file = lock.open("a")
        except OSError as error:
            raise disk_error(lock, error) from error
        self._path = path

    def acquire(self) -> bool:
        """True when this process holds the lock now, False when another one does; never waits."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise disk_error(self._path, error) from error
        return True

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock up, if it is held."""
        self._file.close()


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        known = disk_error(path, error)
        if known is error:  # such as below /proc, where no directory can be made
            why = error.strerror or "it is not said why"
            known = DiskError(f"{path.parent}: cannot be made ({why}); choose another directory")
        raise known from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _allocate(descriptor: int, num_bytes: int) -> None:
    """Allocate the space first, then set the size: `reserve` takes a right size for proof of the space."""
    os.truncate(descriptor, 0)
    try:
        if num_bytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, num_bytes)
        os.truncate(descriptor, num_bytes)
    except OSError:
        os.truncate(descriptor, 0)
        raise


def _means_full(path: Path, error: Exception) -> bool:
    """Whether an error of whatever library means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, UserError):
        return False
    if f"(os error {errno.ENOSPC})" in str(error):  # as Rust's libraries say it
        return True
    place = next(place for place in path.parents if place.exists())
    return shutil.disk_usage(place).free < FULL_BYTES  # torch does not say why it could not write


def _concerns(path: Path, error: OSError) -> bool:
    """Whether `error` is about writing `path`, and not about another file that was read in the meantime."""
    if not isinstance(error.filename, str | os.PathLike):
        return True  # no name: the error is of an open file, and only the file being written is open here
    where = Path(error.filename)
    return where in (path, *path.parents) or any(
        ours in (where, *where.parents) for ours in (path, _temporary(path))
    )
