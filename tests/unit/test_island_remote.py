"""Copies of inner checkpoints in a folder or object store, through fsspec."""

import shutil
import uuid
from pathlib import Path

import fsspec
import pytest
from unit.islands import equal, some_batch, some_island, take_step, values

from atoll.errors import UserError
from atoll.island.checkpoint import MANIFEST_NAME, InnerCheckpoints
from atoll.island.ranks import Ranks


@pytest.fixture
def ranks():
    ranks = Ranks.of_torchrun()
    yield ranks
    ranks.close()


@pytest.fixture(params=["memory", "file", "folder"])
def url(request, tmp_path) -> str:
    folder = tmp_path / "far" / "island"
    return {
        "memory": f"memory://{uuid.uuid4().hex}/island",
        "file": f"file://{folder}",
        "folder": str(folder),
    }[request.param]


def names(url: str) -> list[str]:
    files, root = fsspec.url_to_fs(url)
    return sorted(Path(path).name for path in files.ls(root, detail=False))


def save(directory: Path, ranks: Ranks, url: str, steps: list[int], said: list[str], keep: int = 2):
    """An island that saved after these inner steps, all copied."""
    island = some_island()
    with InnerCheckpoints(island, directory, keep, ranks, url, said.append) as saved:
        for step in steps:
            take_step(island, [some_batch(step)], step)
            saved.save(step)
    return island


def test_an_island_that_lost_its_disk_continues_bit_equal_from_the_copy(tmp_path, ranks, url):
    said: list[str] = []
    steady, resumed = save(tmp_path / "here", ranks, url, [1, 2, 3], said), some_island()
    assert names(url) == ["inner-000000002", "inner-000000003"]
    shutil.rmtree(tmp_path / "here")
    with InnerCheckpoints(resumed, tmp_path / "here", 2, ranks, url, said.append) as saved:
        assert saved.restore() == 3
    resumed.load({name: value.numpy().copy() for name, value in steady.parameters().items()})
    for step in range(4, 6):
        take_step(steady, [some_batch(step)], step)
        take_step(resumed, [some_batch(step)], step)
    assert equal(values(steady), values(resumed))
    assert said == []


def test_a_local_checkpoint_comes_before_the_copy_and_an_empty_remote_is_no_error(tmp_path, ranks, url):
    island = some_island()
    with InnerCheckpoints(island, tmp_path / "here", 2, ranks, url) as saved:
        assert saved.restore() is None
    save(tmp_path / "other", ranks, url, [7], [])
    save(tmp_path / "here", ranks, "", [3], [])
    with InnerCheckpoints(island, tmp_path / "here", 2, ranks, url) as saved:
        assert saved.restore() == 3


def test_a_copy_without_its_manifest_does_not_count_and_is_removed_by_the_next(tmp_path, ranks, url):
    save(tmp_path / "here", ranks, url, [1, 2], [])
    files, root = fsspec.url_to_fs(url)
    files.rm_file(f"{root}/inner-000000002/{MANIFEST_NAME}")
    files.pipe_file(f"{root}/notes.txt", b"not ours")
    shutil.rmtree(tmp_path / "here")
    island = some_island()
    with InnerCheckpoints(island, tmp_path / "here", 3, ranks, url) as saved:
        assert saved.restore() == 1
        take_step(island, [some_batch()], 1)
        saved.save(5)
    assert names(url) == ["inner-000000001", "inner-000000005", "notes.txt"]


def test_after_a_rewind_the_abandoned_copies_are_gone(tmp_path, ranks, url):
    save(tmp_path / "here", ranks, url, [10, 20, 30], [], keep=3)
    save(tmp_path / "again", ranks, url, [20], [], keep=3)
    assert names(url) == ["inner-000000010", "inner-000000020"]


def test_a_damaged_copy_is_named(tmp_path, ranks, url):
    save(tmp_path / "here", ranks, url, [1], [])
    shutil.rmtree(tmp_path / "here")
    files, root = fsspec.url_to_fs(url)
    paths = files.ls(f"{root}/inner-000000001", detail=False)
    shard = next(path for path in paths if path.endswith(".distcp"))
    files.pipe_file(shard, b"something else")
    with pytest.raises(UserError, match=r"distcp: missing or damaged"):
        InnerCheckpoints(some_island(), tmp_path / "here", 2, ranks, url).restore()


def test_training_continues_where_copies_fail_and_says_so(tmp_path, ranks):
    (tmp_path / "far").write_text("a file where the folder should be")
    said: list[str] = []
    save(tmp_path / "here", ranks, str(tmp_path / "far"), [1, 2], said)
    kept = [path.name for path in sorted((tmp_path / "here").iterdir())]
    assert kept == ["inner-000000001", "inner-000000002"]
    assert len(said) == 2
    assert "inner-000000002 could not be copied there" in said[1]


def test_a_url_that_nothing_opens_is_refused_at_once(tmp_path, ranks):
    with pytest.raises(UserError, match=r"island\.checkpoint_to: nowhere://bucket/island cannot be opened"):
        InnerCheckpoints(some_island(), tmp_path, 2, ranks, "nowhere://bucket/island")
