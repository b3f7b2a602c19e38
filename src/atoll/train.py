"""The island's half of DiLoCo: adopt the outer state, train alone, propose; until the run is finished.

`train` is the outer loop, `inner_steps` the training between two outer states. The other half, in which the
islands' proposals become the next outer state, is `agent/outer_step.py`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from atoll import objective as objectives
from atoll import recipe as recipes
from atoll.data.loader import Batch, Loader
from atoll.data.partition import partitions
from atoll.data.unigram import heldout_weights
from atoll.errors import UserError
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.feed import prefetched
from atoll.island.garbage import manual_collection
from atoll.island.heldout import heldout_loss
from atoll.island.parallelize import parallelize
from atoll.island.profile import MIN_STEPS, profiled
from atoll.island.step import InnerMetrics, Island
from atoll.mesh import Adopt, ElasticDeviceMesh, Plan
from atoll.model import hf
from atoll.model.lora import check_base
from atoll.recipe import Recipe
from atoll.run.base import with_base
from atoll.samples import num_samples

HELDOUT_FILE = "heldout.jsonl"
HELDOUT_WINDOWS = 8  # of each source, at each evaluation: enough for a curve
PROFILE_DIR = "profile"
FIRST_PROFILED_PLAN = 2  # the first plan also compiles, and creates the optimizers' state


@dataclass(kw_only=True)
class Summary:
    """What this process did."""

    island: str  # its id
    outer_steps: int = 0  # the number of the newest outer state adopted
    inner_steps: int = 0
    full_inner_steps: int = 0  # of an island that had done all of each outer step
    count: int = 0  # of what the objective counts
    counts: str = "tokens"  # what that is
    loss: float | None = None  # of the last inner step that counted something
    seconds: float = 0.0

    def add(self, done: list[InnerMetrics], full_inner_steps: int) -> None:
        """Count the inner steps that were done of one plan, and those of a whole outer step."""
        self.inner_steps += len(done)
        self.full_inner_steps += full_inner_steps
        self.count += sum(metrics.count for metrics in done)
        self.loss = next((m.loss for m in reversed(done) if m.loss is not None), self.loss)


Report = Callable[[Plan, int, InnerMetrics], None]
Say = Callable[[str], None]


def train(
    mesh: ElasticDeviceMesh,
    own: recipes.Island,
    directory: Path,
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> Summary:
    """Train this island until the run is finished (DiLoCo: arXiv 2311.08105, algorithm 1).

    All ranks call this. `own`: this machine's [island] table. `directory`: where inner checkpoints (rank 0's
    argument counts) and profiles are kept. `report`: called on rank 0 with the plan, the number of an inner
    step within it, from 1, and its metrics. `say`: called with sentences for the user. Raises UserError when
    this island cannot, or may not, go on.
    """
    recipe = recipes.with_island(mesh.swarm.run.recipe, own)
    data = Loader(mesh.swarm.data_dir(), recipe, partitions(mesh.swarm.private_dir, recipe))
    island = build(mesh, recipe, data)
    source_weights = heldout_weights(data.manifest, recipe.mixture(0))
    if own.evaluate_every:
        mesh.swarm.provide(lambda: data.heldout_blocks(HELDOUT_WINDOWS))
    summary = Summary(island=mesh.swarm.island, counts=island.objective.counts)
    started = time.monotonic()
    num_plans, is_profiled = 0, not own.profile
    checkpoints = InnerCheckpoints(
        island, directory / "inner", own.checkpoint_keep, mesh.ranks, own.checkpoint_to, say
    )
    with checkpoints, manual_collection() as collect_garbage:
        has_moments = checkpoints.restore() is not None
        for order in mesh.swarm.orders():
            if isinstance(order, Adopt):
                # An update is committed: every island begins the next outer step with the same parameters.
                mesh.swarm.adopt(order, island.parameters())
                summary.outer_steps = order.step
                if own.evaluate_every and order.step % own.evaluate_every == 0:
                    heldout_batches = data.heldout(own.micro_batch, HELDOUT_WINDOWS)
                    loss = heldout_loss(island, heldout_batches, source_weights)
                    mesh.swarm.measured(heldout_loss=loss)
                    if mesh.ranks.number == 0:
                        append_heldout_loss(directory, order.step, loss)
                continue
            plan = order
            num_plans += 1
            if num_plans == 1 and plan.first_inner_step and not has_moments:
                # This island joins in the middle of the run with fresh moments (docs/decisions/0010).
                island.warm_up_again(plan.first_inner_step, recipe.outer.inner_steps)
            profile_path = None
            if not is_profiled and num_plans >= FIRST_PROFILED_PLAN and plan.inner_steps >= MIN_STEPS:
                profile_path = directory / PROFILE_DIR / f"outer-{plan.step:08}-rank{mesh.ranks.number}"
            done = inner_steps(mesh, island, data, plan, recipe, report, profile_path)
            if profile_path is not None and len(done) >= MIN_STEPS:
                is_profiled = True
                say(f"a profile of outer step {plan.step} is in {profile_path.parent}")
            summary.add(done, recipe.outer.inner_steps)
            if not mesh.swarm.moved_on:  # else the swarm has committed this outer step without us
                propose(mesh, island, plan, done, recipe)
                if (plan.step + 1) % own.checkpoint_every == 0:
                    checkpoints.save(plan.first_inner_step + len(done))
            collect_garbage()  # a pause costs nothing now, while the other islands finish
    summary.seconds = time.monotonic() - started
    return summary


def inner_steps(
    mesh: ElasticDeviceMesh,
    island: Island,
    data: Loader,
    plan: Plan,
    recipe: Recipe,
    report: Report,
    profile_path: Path | None = None,
) -> list[InnerMetrics]:
    """Train alone on the plan's samples, and return the metrics of each inner step done.

    They are fewer than planned when the time is over, or when the swarm has moved on without this island. A
    few of the steps are profiled to files whose names begin with `profile_path`.
    """
    done: list[InnerMetrics] = []
    if not mesh.swarm.provide(lambda: data.blocks(plan.samples, plan.stage_starts)):
        return done
    micro_batches = prefetched(
        own_batches(mesh, data, plan, recipe), lambda step: [island.place(batch) for batch in step]
    )
    if profile_path is not None:
        micro_batches = profiled(micro_batches, profile_path, island.device)
    with closing(micro_batches):
        for number, step in enumerate(micro_batches, start=1):
            island.inner_step(step, plan.first_inner_step + number - 1)
            if number % recipe.island.read_every and number < plan.inner_steps:
                continue
            new = island.read()  # only here does the host wait for the device
            if mesh.ranks.number == 0:
                for at, metrics in enumerate(new, start=len(done) + 1):
                    report(plan, at, metrics)
            done += new
            newest, num_tokens = new[-1], len(new) * recipe.inner.tokens_per_step
            mesh.swarm.measured(
                gradient_norm=newest.gradient_norm, learning_rate=newest.learning_rate, **newest.further
            )
            if not mesh.swarm.progress(newest.loss, num_tokens, len(new)):
                break
    return done


def propose(
    mesh: ElasticDeviceMesh, island: Island, plan: Plan, done: list[InnerMetrics], recipe: Recipe
) -> None:
    """Offer the island's parameters as its contribution to the plan's outer step."""
    num_tokens = num_samples(plan.used_lease(len(done))) * recipe.inner.context_length
    losses = [metrics.loss for metrics in done if metrics.loss is not None]
    mean_loss = sum(losses) / len(losses) if losses else None
    # An island for which nothing counted is not refused; it weighs next to nothing.
    count = max(1, sum(metrics.count for metrics in done))
    mesh.swarm.propose(island.parameters(), num_tokens, mean_loss, count)


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
    """The island's model, sharded over its ranks, and its inner optimizers.

    What is trained gets its values with the first adoption. Raises UserError when the ranks cannot share a
    step's windows evenly, or this machine has no base, or another than the run's.
    """
    if recipe.windows_per_step % mesh.ranks.count:
        raise UserError(
            f"{mesh.ranks.count} ranks cannot share the {recipe.windows_per_step} windows of an inner step "
            "evenly; start a number of ranks that divides them"
        )
    if recipe.island.threads:
        torch.set_num_threads(recipe.island.threads)
    local = mesh.place(recipe.island.device)
    described = with_base(recipe)
    with torch.device("meta"):
        model = hf.build(described, data.manifest.vocab_size)
    names = [tensor.name for tensor in mesh.swarm.run.layout.tensors]
    check_base(model, names, described.checkpoint)
    objective = objectives.build(recipe, data.manifest.vocab_size)
    return Island(parallelize(model, local, recipe.island), objective, recipe, local)


def append_heldout_loss(directory: Path, step: int, loss: float) -> None:
    """Add one evaluation, of outer state `step`, to this island's `heldout.jsonl`."""
    with (directory / HELDOUT_FILE).open("ab") as file:
        file.write(msgspec.json.encode({"step": step, "loss": loss}) + b"\n")
