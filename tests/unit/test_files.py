"""Files are whole or absent after an exception, a full disk or missing permission; and directory locks."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atoll.errors import DiskError, UserError
from atoll.files import (
    DirectoryLock,
    atomic_dir,
    atomic_path,
    digest_file,
    disk_error,
    open_to_readers,
    remove_leftovers,
    reserve,
    write_atomic,
    write_private,
    write_unsynced,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full_disk(monkeypatch):
    """A disk on which no fsync and no allocation succeeds."""

    def fail(*_) -> None:
        raise FULL

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "posix_fallocate", fail)


def everything(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


def test_a_file_appears_with_all_its_bytes(tmp_path) -> None:
    write_atomic(tmp_path / "deep" / "file", b"bytes")
    assert (tmp_path / "deep" / "file").read_bytes() == b"bytes"
    assert everything(tmp_path) == ["deep", "file"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="enough"), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("enough")
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_an_unsynced_file_is_whole_too(tmp_path, monkeypatch) -> None:
    path = tmp_path / "table"
    write_unsynced(path, b"old")

    def fill_up(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:1])
        raise FULL

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(UserError, match="no space left"):
        write_unsynced(path, b"new")
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["table"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match="no space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_the_bytes_are_durable_before_the_name_is(tmp_path, monkeypatch) -> None:
    happened: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (happened.append("sync"), sync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (happened.append("rename"), replace(self, to))[1])
    write_atomic(tmp_path / "file", b"bytes")
    assert happened == ["sync", "rename", "sync"]  # the file, its new name, the directory's


def test_a_directory_appears_whole(tmp_path) -> None:
    with atomic_dir(tmp_path / "out") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_bytes(b"bytes")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "sub" / "file").read_bytes() == b"bytes"
    assert everything(tmp_path) == ["file", "out", "sub"]


def test_an_exception_leaves_no_directory(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="enough"), atomic_dir(tmp_path / "out") as temporary:
        (temporary / "file").write_bytes(b"half")
        raise RuntimeError("enough")
    assert everything(tmp_path) == []


def test_a_full_disk_leaves_no_directory(tmp_path, full_disk) -> None:
    with pytest.raises(UserError, match="no space left"), atomic_dir(tmp_path / "out") as temporary:
        (temporary / "file").write_bytes(b"half")
    assert everything(tmp_path) == []


def test_a_directory_with_something_in_it_is_never_replaced(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_bytes(b"kept")
    with pytest.raises(OSError, match="not empty"), atomic_dir(tmp_path / "out") as temporary:
        (temporary / "file").write_bytes(b"new")
    assert everything(tmp_path) == ["kept", "out"]


@pytest.mark.parametrize(
    "make", [lambda p: write_atomic(p, b""), lambda p: atomic_dir(p).__enter__(), lambda p: reserve(p, 1)]
)
def test_a_disk_too_full_for_a_directory_is_reported_as_full(tmp_path, monkeypatch, make) -> None:
    def fail(*_, **__) -> None:
        raise FULL

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(UserError, match="no space left"):
        make(tmp_path / "deep" / "file")


def test_missing_permission_is_reported_in_a_sentence(tmp_path) -> None:
    told = disk_error(tmp_path, PermissionError(errno.EACCES, "no"))
    assert isinstance(told, UserError)
    assert "another directory" in str(told)


def test_missing_permission_to_read_another_file_is_not_reported_as_missing_to_write(tmp_path) -> None:
    def told(where: Path) -> Exception:
        return disk_error(tmp_path / "out", PermissionError(errno.EACCES, "no", str(where)))

    assert isinstance(told(tmp_path / "source.txt"), PermissionError)
    temporary = tmp_path / f".out.{os.getpid()}.tmp"
    for ours in (tmp_path, tmp_path / "out", tmp_path / "out" / "file", temporary / "file"):
        assert isinstance(told(ours), UserError)


def test_any_other_error_stays_what_it_is(tmp_path) -> None:
    error = OSError(errno.EIO, "broken")
    assert disk_error(tmp_path, error) is error


# -------------------------------------------------------------------------------------------- reserve, digest
def test_reserved_space_is_really_there(tmp_path) -> None:
    reserve(tmp_path / "file", 1 << 20)
    found = (tmp_path / "file").stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20


def test_a_file_of_the_right_size_keeps_its_bytes(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"state")
    reserve(tmp_path / "file", 5)
    assert (tmp_path / "file").read_bytes() == b"state"


def test_reserving_on_a_full_disk_takes_no_space(tmp_path, full_disk) -> None:
    with pytest.raises(UserError, match="no space left"):
        reserve(tmp_path / "file", 1 << 20)
    assert not (tmp_path / "file").exists()


def test_a_kill_while_reserving_leaves_no_file_that_looks_reserved(tmp_path, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", kill)
        with pytest.raises(Killed):
            reserve(tmp_path / "file", 1 << 20)
    reserve(tmp_path / "file", 1 << 20)  # the next start
    assert (tmp_path / "file").stat().st_blocks * 512 >= 1 << 20


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path) -> None:
    digests: set[str] = set()
    for data in (b"", b"a", b"b" * 100_000):
        (tmp_path / "file").write_bytes(data)
        digests.add(digest_file(tmp_path / "file"))
    assert len(digests) == 3
    assert "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" in digests  # BLAKE3 of nothing


# ------------------------------------------------------------------------------------------------------- lock
def test_a_directory_is_locked_once(tmp_path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_a_lock_ends_with_its_process(tmp_path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from atoll.files import DirectoryLock\n"
        "print(DirectoryLock(Path(sys.argv[1])).acquire(), flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n"
    lock = DirectoryLock(tmp_path)
    assert lock.acquire()
    lock.release()


# -------------------------------------------------------------------------------------------------- leftovers
def test_temporary_files_of_a_killed_process_are_removed_and_nothing_else(tmp_path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".half.1234.tmp").write_bytes(b"half")
    (tmp_path / ".out.1234.tmp").mkdir()
    (tmp_path / ".out.1234.tmp" / "file").write_bytes(b"half")
    for kept in (".lock", "notes.tmp", "state/whole"):
        (tmp_path / kept).write_bytes(b"kept")
    remove_leftovers(tmp_path)
    assert everything(tmp_path) == [".lock", "notes.tmp", "state", "whole"]


@pytest.fixture
def umask_022():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_ticket_or_key_is_for_its_owner_alone(tmp_path, umask_022) -> None:
    write_private(tmp_path / "ticket", b"secret")
    assert (tmp_path / "ticket").stat().st_mode & 0o777 == 0o600
    assert os.umask(0o022) == 0o022, "the umask is what it was"


def test_a_file_of_a_library_that_keeps_it_private_is_opened_as_the_umask_says(tmp_path, umask_022) -> None:
    path = tmp_path / "model.safetensors"
    path.touch(0o600)
    open_to_readers(path)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_can_be_read_by_others(tmp_path, umask_022) -> None:
    from atoll.agent import checkpoint
    from atoll.swarm.layout import Layout, TensorSpec

    layout = Layout((TensorSpec("a", (8,)),))
    flat = np.zeros(layout.num_elements, np.float32)
    path = checkpoint.save(tmp_path, layout, 0, checkpoint.flat_root(layout, flat), flat, None)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EROFS, "this file system is read-only"),
        (errno.ENAMETOOLONG, "this name is too long"),
        (errno.ENOTDIR, "is a file, not a directory"),
        (errno.ENOLCK, "the file system here cannot do what is needed"),
        (errno.EDQUOT, "no space left on the disk"),
    ],
)
def test_what_a_file_system_cannot_do_is_said_with_the_path(tmp_path, number, text) -> None:
    error = disk_error(tmp_path / "file", OSError(number, os.strerror(number), str(tmp_path / "file")))
    assert isinstance(error, DiskError)
    assert str(error).startswith(f"{tmp_path / 'file'}: ") and text in str(error)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here")
def test_a_directory_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(DiskError, match=r"/proc/nowhere: cannot be made .*; choose another directory"):
        DirectoryLock(Path("/proc/nowhere"))


def test_a_file_in_the_way_of_a_directory_is_named(tmp_path) -> None:
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(DiskError, match="is a file, not a directory"):
        write_atomic(tmp_path / "run" / "coordinator" / "ticket", b"")


def test_a_library_that_says_no_more_than_that_it_failed_is_believed_on_a_full_disk(
    tmp_path, monkeypatch
) -> None:
    error = RuntimeError("unexpected pos 704 vs 598")
    assert disk_error(tmp_path / "file", error) is error
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert isinstance(disk_error(tmp_path / "file", error), DiskError)
    mistake = UserError("something else")
    assert disk_error(tmp_path / "file", mistake) is mistake
