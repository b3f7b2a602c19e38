"""An island of two CPU ranks takes the same steps as one rank, and shares checkpoints and a swarm with it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faults.processes import World
from torch.distributed.tensor import DTensor
from unit.islands import some_batch, some_island, some_recipe, take_step

from atoll import recipe
from atoll.data.manifest import Manifest
from atoll.errors import UserError
from atoll.files import DirectoryLock
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.parallelize import parallelize
from atoll.island.ranks import Ranks, own_rows
from atoll.island.step import Island
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.objective import build
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare

NUM_STEPS = 4
WINDOWS = 4  # of some_batch


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would set."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)} | where


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def sharded_island(ranks: Ranks, cpu_offload: bool = False) -> Island:
    described = some_recipe()
    model = Llama(resolve(described.model, 64))
    model.init_weights(described.seed)
    mesh = ranks.device_mesh(torch.device("cpu"))
    how = recipe.Island(activation_checkpointing=True, cpu_offload=cpu_offload)
    return Island(parallelize(model, mesh, how), build(described, 64), described, mesh)


def one_of_two(rank: int, port: int, directory: str) -> None:
    """One rank of two: takes the steps of one rank, and reads the checkpoints of two ranks and of one."""
    os.environ |= environment(rank, 2, port)
    torch.set_num_threads(1)
    ranks = Ranks.of_torchrun()
    island, offloaded, alone = sharded_island(ranks), sharded_island(ranks, cpu_offload=True), some_island()
    names, shapes = list(island.parameters()), [p.shape for p in island.parameters().values()]
    assert names == list(alone.parameters())
    assert shapes == [p.shape for p in alone.parameters().values()]
    share = WINDOWS // 2
    for step in range(NUM_STEPS):
        part = [some_batch(step).windows(rank * share, (rank + 1) * share)]
        ours = take_step(island, part, step)
        assert take_step(offloaded, part, step) == ours
        theirs = take_step(alone, [some_batch(step)], step)
        assert ours.count == theirs.count
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-5)
    assert island.evaluate([some_batch()])[0] == pytest.approx(alone.evaluate([some_batch()])[0], rel=1e-5)
    for parameter in island.parameters().values():  # sharded again after evaluate
        assert isinstance(parameter, DTensor)
        before, mine = own_rows(parameter)
        assert torch.equal(parameter.full_tensor().flatten()[before : before + mine.numel()], mine.flatten())
    close(island, alone)
    close(offloaded, alone)

    own = Path(directory) / ("two" if rank == 0 else f"unused-{rank}")  # rank 0's is used on both
    with InnerCheckpoints(island, own, 2, ranks) as saved:
        saved.save(NUM_STEPS)
        saved.wait()
        take_step(island, [some_batch(9).windows(rank * share, (rank + 1) * share)], 9)  # to be forgotten
        assert saved.restore() == NUM_STEPS
    with InnerCheckpoints(sharded_island(ranks), Path(directory) / "one", 2, ranks) as saved:
        assert saved.restore() == NUM_STEPS
        resumed = saved._island
    for ours, theirs in zip(moments(resumed), moments(island), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)

    with pytest.raises(UserError, match="only rank 0 knows"):
        ranks.first(refuse)
    ranks.close()


def refuse() -> None:
    raise UserError("only rank 0 knows")


def close(island: Island, alone: Island) -> None:
    for ours, theirs in zip(island.parameters().values(), alone.parameters().values(), strict=True):
        whole = ours.full_tensor() if isinstance(ours, DTensor) else ours
        torch.testing.assert_close(whole, theirs, rtol=1e-3, atol=1e-5)


def moments(island: Island) -> list[torch.Tensor]:
    states = [state for optimizer in island.optimizers for state in optimizer.state.values()]
    found = [state[key] for state in states for key in ("exp_avg", "exp_avg_sq", "step")]
    return [value.full_tensor() if isinstance(value, DTensor) else value for value in found]


def test_two_ranks_step_as_one_and_either_reads_the_others_checkpoint(tmp_path):
    ranks = Ranks.of_torchrun()
    island, restored = some_island(), some_island()
    for step in range(NUM_STEPS):
        take_step(island, [some_batch(step)], step)
    with InnerCheckpoints(island, tmp_path / "one", 2, ranks) as saved:
        saved.save(NUM_STEPS)
    torch.multiprocessing.start_processes(
        one_of_two, (free_port(), str(tmp_path)), nprocs=2, start_method="spawn"
    )
    with InnerCheckpoints(restored, tmp_path / "two", 2, ranks) as saved:
        assert saved.restore() == NUM_STEPS
    for ours, theirs in zip(moments(restored), moments(island), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    ranks.close()


RECIPE = """
name = "ranks"
model.preset = "demo"
model.hidden_size = 32
model.num_attention_heads = 2
model.intermediate_size = 64
model.vocab_size = 320
tokenizer.train = 320
sources.text = { text = "package:books", separator = "\\f" }
stage = [{ until = 48, mixture = { text = 1 } }]
inner = { context_length = 64, tokens_per_step = 256 }
outer = { inner_steps = 4, min_participants = 2 }
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
OWN = ["island.threads=1", "island.micro_batch=1", "island.evaluate_every=6", "island.profile=true"]


def prepared(directory: Path) -> World:
    """A hosted run, for islands whose `OWN` settings two ranks can share."""
    (directory / "ranks.toml").write_text(RECIPE)
    world = World(directory / "run", str(directory / "ranks.toml"))
    prepare(recipe.load(directory / "ranks.toml"), world.run_dir, lambda *_: None)
    world.host()
    return world


def elsewhere(world: World) -> RunDir:
    """The run's directory on another machine, which has neither data nor state 0."""
    return RunDir(world.run_dir.path.parent / "elsewhere")


def join_two(world: World) -> list[str]:
    """What each rank of the island "two" runs."""
    directory = str(elsewhere(world).path)
    options = ["--dir", directory, "--name", "two", "--contributor", "two", "--listen", "127.0.0.1:0"]
    return ["atoll", "join", world.ticket, *OWN, *options, "--no-check"]


def two_is_in(world: World) -> None:
    world.until(lambda: any(e.contributor == "two" for e in world.events("joined")), "two is in")


def check_one_swarm(world: World) -> None:
    commits = world.events("committed")
    assert [len(commit.participants) for commit in commits] == [2] * 12
    assert not world.events("unequal")
    there = elsewhere(world)
    assert len((there.islands / "two" / "heldout.jsonl").read_text().splitlines()) == 3
    checkpoints = sorted((there.islands / "two" / "inner").iterdir())
    assert len(checkpoints) == 2
    assert len(list(checkpoints[-1].glob("*.distcp"))) == 2  # each rank wrote its own
    profile = there.islands / "two" / "profile"
    profiles = sorted(path.name.partition("-rank")[2] for path in profile.iterdir())
    assert profiles == ["0.trace.json", "1.trace.json"]
    # The other rank took no directory of its own.
    assert [path.name for path in there.islands.iterdir()] == ["two"]
    assert Manifest.load(there.data).digest() == Manifest.load(world.run_dir.data).digest()
    assert (there.data / "tokenizer" / "tokenizer.json").exists()


def test_islands_of_one_and_two_ranks_make_one_swarm(tmp_path):
    with prepared(tmp_path) as world:
        port = free_port()
        for rank in range(2):
            world.start(f"two-{rank}", join_two(world), environment(rank, 2, port))
        two_is_in(world)
        world.join("one")
        for name in ("one", "two-0", "two-1"):
            assert world.children[name].process.wait(90) == 0, world.log(name).read_text()
        check_one_swarm(world)
        assert "the run is finished at outer step 12" in world.log("two-0").read_text()
        assert f"is in {elsewhere(world).islands / 'two' / 'profile'}" in world.log("two-0").read_text()
        assert "island" not in world.log("two-1").read_text()  # rank 0 speaks for the island


def test_a_directory_that_is_taken_is_refused_on_every_rank(tmp_path):
    with prepared(tmp_path) as world, DirectoryLock(elsewhere(world).islands / "two" / "trainer") as lock:
        assert lock.acquire()
        port = free_port()
        for rank in range(2):
            world.start(f"two-{rank}", join_two(world), environment(rank, 2, port))
        for rank in range(2):
            assert world.children[f"two-{rank}"].process.wait(60) == 2
            assert "another process trains here" in world.log(f"two-{rank}").read_text()


@pytest.mark.slow
def test_torchrun_starts_an_island_of_two_ranks(tmp_path):
    with prepared(tmp_path) as world:
        command = [*TORCHRUN, "-m", *join_two(world)]
        with world.log("torchrun").open("wb") as log:
            torchrun = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            two_is_in(world)
            world.join("one")
            assert world.children["one"].process.wait(120) == 0, world.log("one").read_text()
            assert torchrun.wait(60) == 0, world.log("torchrun").read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(torchrun.pid, signal.SIGKILL)
        check_one_swarm(world)
        assert world.log("torchrun").read_text().count("the run is finished at outer step 12") == 1


@pytest.mark.slow
def test_torchrun_trains_alone_on_two_ranks(tmp_path):
    (tmp_path / "ranks.toml").write_text(RECIPE)
    overrides = ["stage.0.until=24", "outer.min_participants=1", *OWN]
    arguments = ["atoll", "train", str(tmp_path / "ranks.toml"), *overrides, "--dir", str(tmp_path / "run")]
    command = [*TORCHRUN, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the run is finished at outer step 6;") == 1
    assert done.stdout.count("next: atoll export") == 1
