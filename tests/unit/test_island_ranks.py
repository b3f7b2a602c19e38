"""An island of two CPU ranks: the same steps as one, checkpoints either reads, and a swarm of both kinds."""

import os
import socket
from pathlib import Path

import pytest
import torch
from faults.processes import World
from torch.distributed.tensor import DTensor
from unit.islands import some_batch, some_island, some_recipe, take_step

from atoll import recipe
from atoll.errors import UserError
from atoll.genesis import prepare
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.parallelize import parallelize
from atoll.island.ranks import Ranks, own_rows
from atoll.island.step import Island
from atoll.model.llama import Llama
from atoll.model.presets import resolve

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


def sharded_island(ranks: Ranks) -> Island:
    described = some_recipe()
    model = Llama(resolve(described.model, 64))
    model.init_weights(described.seed)
    mesh = ranks.device_mesh(torch.device("cpu"))
    return Island(parallelize(model, mesh, recipe.Island(activation_checkpointing=True)), described, mesh)


def one_of_two(rank: int, port: int, directory: str) -> None:
    """A rank: the steps of an island alone; a checkpoint by two, read by two; then one's, read by two."""
    os.environ |= environment(rank, 2, port)
    torch.set_num_threads(1)
    ranks = Ranks.of_torchrun()
    island, alone = sharded_island(ranks), some_island()
    names, shapes = list(island.parameters()), [p.shape for p in island.parameters().values()]
    assert names == list(alone.parameters())
    assert shapes == [p.shape for p in alone.parameters().values()]
    share = WINDOWS // 2
    for step in range(NUM_STEPS):
        ours = take_step(island, [some_batch(step).windows(rank * share, (rank + 1) * share)], step)
        theirs = take_step(alone, [some_batch(step)], step)
        assert ours.tokens == theirs.tokens
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)
    assert island.evaluate([some_batch()])[0] == pytest.approx(alone.evaluate([some_batch()])[0], rel=1e-5)
    for parameter in island.parameters().values():  # sharded again after evaluate
        assert isinstance(parameter, DTensor)
        before, mine = own_rows(parameter)
        assert torch.equal(parameter.full_tensor().flatten()[before : before + mine.numel()], mine.flatten())
    close(island, alone)

    with InnerCheckpoints(island, Path(directory) / f"theirs-{rank}" if rank else Path(directory) / "two", 2, ranks) as saved:
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
    torch.multiprocessing.start_processes(one_of_two, (free_port(), str(tmp_path)), nprocs=2, start_method="spawn")
    with InnerCheckpoints(restored, tmp_path / "two", 2, ranks) as saved:
        assert saved.restore() == NUM_STEPS
    for ours, theirs in zip(moments(restored), moments(island), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    ranks.close()


RECIPE = """
name = "ranks"
model = { preset = "demo", hidden_size = 32, num_attention_heads = 2, intermediate_size = 64, vocab_size = 320 }
tokenizer.train = 320
sources.text = { text = "package:books", separator = "\\f" }
stage = [{ until = 240, mixture = { text = 1 } }]
inner = { context_length = 64, tokens_per_step = 256 }
outer = { inner_steps = 4 }
"""
ISLAND = """
import sys
from pathlib import Path
from atoll.genesis import RunDir
from atoll.join import agent_settings
from atoll.mesh import ElasticDeviceMesh
from atoll.processes import watch_leash
from atoll.recipe import own_island
from atoll.train import train
watch_leash()
ticket, run, directory = sys.argv[1], RunDir(Path(sys.argv[2])), Path(sys.argv[3])
settings = agent_settings(run, directory, "two", "127.0.0.1:0", False)
with ElasticDeviceMesh.join(ticket, directory, settings=settings) as mesh:
    summary = train(mesh, own_island(["island.threads=1", "island.micro_batch=1", "island.evaluate_every=30"]), directory)
    print("summary", summary.outer_steps, summary.inner_steps, summary.tokens, summary.loss)
"""


def test_islands_of_one_and_two_ranks_make_one_swarm(tmp_path):
    (tmp_path / "ranks.toml").write_text(RECIPE)
    (tmp_path / "ranked_island.py").write_text(ISLAND)
    with World(tmp_path / "run", str(tmp_path / "ranks.toml")) as world:
        prepare(recipe.load(tmp_path / "ranks.toml"), world.run_dir, lambda *_: None)
        world.host()
        port, directory = free_port(), str(world.run_dir.islands / "two")
        for rank in range(2):
            arguments = ["ranked_island", world.ticket, str(tmp_path / "run"), directory if rank == 0 else "/nowhere"]
            world.start(f"two-{rank}", arguments, environment(rank, 2, port) | {"PYTHONPATH": str(tmp_path)})
        world.until(lambda: any(e.facts["contributor"] == "two" for e in world.events("joined")), "two is in")
        world.join("one")
        for name in ("one", "two-0", "two-1"):
            assert world.children[name].process.wait(90) == 0, world.log(name).read_text()
        commits = world.events("committed")
        assert len(commits) == 60
        assert sum(len(commit.facts["participants"]) == 2 for commit in commits) > 10
        assert not world.events("unequal")
        # Equal on both ranks; not in how many inner steps, which the coordinator fits to an island's speed.
        told = [line for rank in range(2) for line in world.log(f"two-{rank}").read_text().splitlines() if "summary" in line]
        assert told[0] == told[1]
        assert told[0].split()[1] == "60"
        assert len((world.run_dir.islands / "two" / "heldout.jsonl").read_text().splitlines()) == 3
        checkpoints = sorted((world.run_dir.islands / "two" / "inner").iterdir())
        assert len(checkpoints) == 2
        assert len(list(checkpoints[-1].glob("*.distcp"))) == 2
