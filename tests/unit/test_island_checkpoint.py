"""The inner checkpoint of one island."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.islands import OPTIMIZERS, equal, some_batch, some_island, some_recipe, take_step, values

from atoll.errors import UserError
from atoll.island import checkpoint
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.ranks import Ranks


@pytest.fixture(autouse=True)
def ranks() -> Iterator[Ranks]:
    ranks = Ranks.of_torchrun()
    yield ranks
    ranks.close()


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_resumed_island_continues_bit_equal(tmp_path, ranks, optimizer):
    described = some_recipe(optimizer)
    steady, resumed = some_island(described), some_island(described)
    with InnerCheckpoints(steady, tmp_path, 2, ranks) as saved:
        for step in range(4):
            take_step(steady, [some_batch(step)], step)
            if step % 2:  # the second time too: by then steps have moved on what the first one staged
                saved.save(step + 1)
        outer_state = {name: value.numpy().copy() for name, value in steady.parameters().items()}
        for step in range(4, 7):  # while the thread writes
            take_step(steady, [some_batch(step)], step)

    with InnerCheckpoints(resumed, tmp_path, 2, ranks) as saved:
        assert saved.restore() == 4
        resumed.load(outer_state)
        for step in range(4, 7):
            take_step(resumed, [some_batch(step)], step)
        assert equal(values(steady), values(resumed))
        saved.save(7)  # after a restore: the state is now other tensors
        saved.wait()
        take_step(resumed, [some_batch(7)], 7)
        take_step(steady, [some_batch(7)], 7)
        assert saved.restore() == 7
    resumed.load({name: value.numpy().copy() for name, value in steady.parameters().items()})


def test_training_goes_on_while_a_save_is_written(tmp_path, ranks, monkeypatch):
    may_write, save = threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a, **k: (may_write.wait(30), save(*a, **k)))
    island = some_island()
    take_step(island, [some_batch()], 0)
    with InnerCheckpoints(island, tmp_path, 2, ranks) as saved:
        saved.save(1)
        take_step(island, [some_batch()], 1)
        assert not list(tmp_path.glob("inner-*"))
        may_write.set()
        saved.wait()
        assert [path.name for path in tmp_path.iterdir()] == ["inner-000000001"]


def test_only_the_newest_checkpoints_are_kept_and_a_damaged_one_is_named(tmp_path, ranks):
    island = some_island()
    with InnerCheckpoints(island, tmp_path, 2, ranks) as saved:
        assert saved.restore() is None
        for step in range(1, 4):
            take_step(island, [some_batch()], step)
            saved.save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner-000000002", "inner-000000003"]
    shard = next((tmp_path / "inner-000000003").glob("*.distcp"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(UserError, match=r"distcp: missing or damaged.*delete .*inner-000000003"):
        saved.restore()
    (tmp_path / "inner-000000003" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json: missing or damaged"):
        saved.restore()


def test_after_a_rewind_the_abandoned_checkpoints_are_gone(tmp_path, ranks):
    island = some_island()
    take_step(island, [some_batch()], 0)
    with InnerCheckpoints(island, tmp_path, 3, ranks) as saved:
        for step in (10, 20, 30, 20):
            saved.save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner-000000010", "inner-000000020"]
    assert saved.restore() == 20


def test_a_full_disk_is_reported_at_the_next_save_and_the_previous_checkpoint_stays(
    tmp_path, ranks, monkeypatch
):
    island = some_island()
    take_step(island, [some_batch()], 0)
    saved = InnerCheckpoints(island, tmp_path, 1, ranks)
    saved.save(1)
    saved.wait()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    saved.save(2)
    with pytest.raises(UserError, match="no space left"):
        saved.save(3)
    assert [path.name for path in tmp_path.iterdir()] == ["inner-000000001"]
    assert saved.restore() == 1
    saved.save(4)
    with pytest.raises(UserError, match="no space left"), saved:
        pass


SAVES = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from unit.islands import some_batch, some_island, take_step
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.ranks import Ranks
island = some_island()
take_step(island, [some_batch()], 0)
saved = InnerCheckpoints(island, Path(sys.argv[1]), 2, Ranks.of_torchrun())
print("restored", saved.restore() or 0, flush=True)
for step in range(int(sys.argv[2]), 100_000):
    saved.save(step)
    saved.wait()
    print("durable", step, flush=True)
"""


def test_kill_9_during_a_save_never_costs_the_previous_one(tmp_path):
    durable, torn = 0, 0
    for life in range(4):
        program = SAVES.format(path=[str(Path(__file__).parents[1])])
        command = [sys.executable, "-c", program, str(tmp_path), str(durable + 1)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert int(child.stdout.readline().split()[1]) >= durable, "a durable checkpoint was lost"
        child.stdout.readline()  # the first save: from here on one follows another
        time.sleep(0.03 + 0.017 * life)
        os.kill(child.pid, signal.SIGKILL)
        lines = [line for line in child.communicate()[0].splitlines() if line.startswith("durable")]
        torn += any(tmp_path.glob(".*.tmp"))
        durable = max([durable + 1, *(int(line.split()[1]) for line in lines)])
    assert torn, "no kill struck a save"
