"""One island's page of the algorithm. The agent's page, the outer half, is `agent/outer_step.py`."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from atoll import recipe as recipes
from atoll.data.loader import Batch, Loader
from atoll.data.partition import partitions
from atoll.data.unigram import heldout_weights
from atoll.errors import UserError
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.feed import ahead, place
from atoll.island.garbage import collected_by_hand
from atoll.island.heldout import heldout_loss
from atoll.island.parallelize import parallelize
from atoll.island.profile import profiled
from atoll.island.step import InnerMetrics, Island
from atoll.mesh import Adopt, ElasticDeviceMesh, Plan
from atoll.model import hf
from atoll.recipe import Recipe
from atoll.samples import num_samples

HELDOUT_FILE = "heldout.jsonl"
PROFILE_DIR = "profile"
LOOK_WINDOWS = 8  # of each source, at each look at held-out loss: enough for a curve


@dataclass(kw_only=True)
class Summary:
    """What this process did."""

    island: str
    outer_steps: int = 0
    inner_steps: int = 0
    tokens: int = 0
    loss: float = float("nan")  # of the last inner step
    seconds: float = 0.0

    def add(self, done: list[InnerMetrics]) -> None:
        self.inner_steps += len(done)
        self.tokens += sum(metrics.tokens for metrics in done)
        self.loss = done[-1].loss if done else self.loss


Report = Callable[[Plan, int, InnerMetrics], None]
Say = Callable[[str], None]


def train(
    mesh: ElasticDeviceMesh,
    own: recipes.Island,
    directory: Path,
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> Summary:
    """DiLoCo (arXiv 2311.08105, algorithm 1) on one island, until the run is finished. All its ranks call
    this.

    `own` is the recipe's [island] table of this machine; `directory` keeps the inner checkpoints (rank 0's
    counts), and profiles. Raises UserError when this island may not, or cannot, go on.
    """
    recipe = recipes.with_island(mesh.swarm.run.recipe, own)
    data = Loader(mesh.swarm.data_dir(), recipe, partitions(mesh.swarm.private_dir, recipe))
    island = build(mesh, recipe, data)
    weights = heldout_weights(data.manifest, recipe.mixture(0))
    if own.evaluate_every:
        mesh.swarm.provide(lambda: data.heldout_blocks(LOOK_WINDOWS))
    summary = Summary(island=mesh.swarm.island)
    started = time.monotonic()
    plans = 0
    checkpoints = InnerCheckpoints(
        island, directory / "inner", own.checkpoint_keep, mesh.ranks, own.checkpoint_to, say
    )
    with checkpoints as saved, collected_by_hand() as collect:
        fresh = saved.restore() is None
        for order in mesh.swarm.orders():
            if isinstance(order, Adopt):  # committed for all of us: start the next step from the same bits
                mesh.swarm.adopt(order, island.parameters())
                summary.outer_steps = order.step
                if own.evaluate_every and order.step % own.evaluate_every == 0:
                    loss = heldout_loss(island, data.heldout(own.micro_batch, LOOK_WINDOWS), weights)
                    if mesh.ranks.number == 0:
                        note_heldout(directory, order.step, loss)
            else:
                plans += 1
                if plans == 1 and fresh and order.first_inner_step:  # a joiner (docs/decisions/0010)
                    island.warm_up_again(order.first_inner_step, recipe.outer.inner_steps)
                trace = None
                if own.profile and plans == 2:  # the first also compiles, and makes the optimizers' state
                    trace = directory / PROFILE_DIR / f"outer-{order.step:08}-rank{mesh.ranks.number}"
                    say(f"a profile of outer step {order.step} will be in {trace.parent}")
                done = inner_steps(mesh, island, data, order, recipe, report, trace)
                summary.add(done)
                if not mesh.swarm.moved_on:
                    tokens = num_samples(order.used_lease(len(done))) * recipe.inner.context_length
                    mesh.swarm.propose(
                        island.parameters(), tokens, sum(metrics.loss for metrics in done) / len(done)
                    )
                    if (order.step + 1) % own.checkpoint_every == 0:
                        saved.save(order.first_inner_step + len(done))
                collect()  # while the others finish
    summary.seconds = time.monotonic() - started
    return summary


def inner_steps(
    mesh: ElasticDeviceMesh,
    island: Island,
    data: Loader,
    plan: Plan,
    recipe: Recipe,
    report: Report,
    trace: Path | None = None,
) -> list[InnerMetrics]:
    """Train alone on the plan's samples; what was done, less than planned when the time was over, or the
    swarm moved on.

    A few of the steps are profiled to files that begin with `trace`.
    """
    done: list[InnerMetrics] = []
    if not mesh.swarm.provide(lambda: data.blocks(plan.samples, plan.stage_starts)):
        return done
    placed = ahead(
        own_batches(mesh, data, plan, recipe), lambda step: [place(b, island.device) for b in step]
    )
    with closing(profiled(placed, trace, island.device) if trace else placed) as batches:
        for number, batch in enumerate(batches, start=1):
            island.inner_step(batch, plan.first_inner_step + number - 1)
            if number % recipe.island.read_every and number < plan.inner_steps:
                continue
            news = island.read()  # here alone the host waits for the device
            if mesh.ranks.number == 0:
                for at, metrics in enumerate(news, start=len(done) + 1):
                    report(plan, at, metrics)
            done += news
            if not mesh.swarm.progress(news[-1].loss, sum(metrics.tokens for metrics in news), len(news)):
                break
    return done


def own_batches(mesh: ElasticDeviceMesh, data: Loader, plan: Plan, recipe: Recipe) -> Iterator[list[Batch]]:
    """Each inner step's micro-batches for this rank: an equal, contiguous share of the step's windows."""
    samples, share = plan.samples, recipe.windows_per_step // mesh.ranks.count
    ours = (
        samples[start + i]
        for start in range(mesh.ranks.number * share, len(samples), recipe.windows_per_step)
        for i in range(share)
    )
    return data.batches(ours, plan.stage_starts, share, recipe.island.micro_batch)


def build(mesh: ElasticDeviceMesh, recipe: Recipe, data: Loader) -> Island:
    """The island's model over its ranks, with its inner optimizer. Weights come with the first adoption.

    Raises UserError when the ranks cannot share a step's windows evenly.
    """
    if recipe.windows_per_step % mesh.ranks.count:
        raise UserError(
            f"{mesh.ranks.count} ranks cannot share the {recipe.windows_per_step} windows of an inner "
            "step evenly; "
            "start as many as divide them"
        )
    if recipe.island.threads:
        torch.set_num_threads(recipe.island.threads)
    local = mesh.place(recipe.island.device)
    with torch.device("meta"):
        model = hf.build(recipe.model, data.manifest.vocab_size)
    return Island(parallelize(model, local, recipe.island), recipe, local)


def note_heldout(directory: Path, step: int, loss: float) -> None:
    """Add a look at held-out loss to this island's `heldout.jsonl`."""
    with (directory / HELDOUT_FILE).open("ab") as file:
        file.write(msgspec.json.encode({"step": step, "loss": loss}) + b"\n")
