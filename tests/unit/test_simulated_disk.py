"""The simulator's disk keeps what was synced, and loses nothing to a plain death."""

from pathlib import Path

import pytest

from atoll.errors import DiskError
from atoll.files import DISK, reserve, write_atomic, write_unsynced
from atoll.simulate.disk import ForgetfulDisk


@pytest.fixture
def disk(tmp_path: Path) -> ForgetfulDisk:
    return ForgetfulDisk(tmp_path / "disk", "0")


@pytest.fixture(autouse=True)
def used(disk: ForgetfulDisk):
    token = DISK.set(disk)
    yield
    DISK.reset(token)


def left(directory: Path, seed: int, **written: bytes) -> dict[str, bytes]:
    """What a power cut leaves of files that were synced as b"old" and then written again without."""
    disk = ForgetfulDisk(directory / str(seed), str(seed))
    DISK.set(disk)
    for name in written:
        write_atomic(disk.directory / name, b"old")
    for name, data in written.items():
        write_unsynced(disk.directory / name, data)
    disk.lose_power()
    return {path.name: path.read_bytes() for path in disk.directory.iterdir()}


def test_what_was_written_atomically_survives_every_power_cut(disk: ForgetfulDisk) -> None:
    for number in range(20):
        write_atomic(disk.directory / f"{number}", bytes([number]) * 5000)
        disk.lose_power()
        kept = {path.name: path.read_bytes() for path in disk.directory.iterdir()}
        assert kept == {f"{n}": bytes([n]) * 5000 for n in range(number + 1)}


def test_what_was_not_synced_is_there_or_not_or_in_part(tmp_path: Path) -> None:
    seen = [left(tmp_path, seed, a=b"new" * 3000, b=b"new") for seed in range(60)]
    assert {files["b"] for files in seen} >= {b"old", b"new"}
    assert any(files["a"] not in (b"old", b"new" * 3000) for files in seen), "torn"
    assert {(files["a"] == b"old", files["b"] == b"old") for files in seen} >= {(True, False), (False, True)}


def test_a_name_that_was_not_synced_may_be_gone(tmp_path: Path) -> None:
    outcomes = set[bool]()
    for seed in range(30):
        disk = ForgetfulDisk(tmp_path / f"n{seed}", str(seed))
        path = disk.directory / "file"
        path.write_bytes(b"x")
        disk.sync(path)  # its bytes, but not its name
        disk.lose_power()
        outcomes.add(path.exists())
    assert outcomes == {True, False}


def test_a_note_brings_back_all_files_and_what_is_durable_of_them(disk: ForgetfulDisk) -> None:
    path = disk.directory / "kept"
    write_atomic(path, b"before")
    restore = disk.note()
    write_atomic(path, b"after")
    (disk.directory / "new").write_bytes(b"x")
    restore()
    assert [p.name for p in disk.directory.iterdir()] == ["kept"] and path.read_bytes() == b"before"
    disk.lose_power()
    assert path.read_bytes() == b"before" == disk.durable(path)


def test_a_full_disk_refuses_what_is_written_and_keeps_what_is_there(disk: ForgetfulDisk) -> None:
    write_atomic(disk.directory / "a", b"1")
    disk.full = True
    with pytest.raises(DiskError, match="no space left"):
        write_atomic(disk.directory / "a", b"2")
    with pytest.raises(DiskError, match="no space left"):
        reserve(disk.directory / "b", 10)
    assert [(p.name, p.read_bytes()) for p in disk.directory.iterdir()] == [("a", b"1")]


def test_a_bit_flips_in_one_file(disk: ForgetfulDisk) -> None:
    path = disk.directory / "1.update"
    write_atomic(path, bytes(100))
    assert disk.rot() == "1.update" and disk.is_rotten
    assert sum(byte.bit_count() for byte in path.read_bytes()) == 1
