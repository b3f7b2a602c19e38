"""One island's page of the algorithm. The agent's page, the outer half, is `agent/outer_step.py`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from atoll import recipe as recipes
from atoll.data.loader import Loader
from atoll.data.unigram import heldout_weights
from atoll.files import sweep
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.heldout import heldout_loss
from atoll.island.parallelize import parallelize
from atoll.island.step import InnerMetrics, Island
from atoll.mesh import Adopt, ElasticDeviceMesh, Plan
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.recipe import Recipe

HELDOUT_FILE = "heldout.jsonl"
LOOK_WINDOWS = 8  # of each source, at each look at held-out loss: enough for a curve


@dataclass
class Summary:
    """What this process did."""

    island: str
    outer_steps: int = 0
    inner_steps: int = 0
    tokens: int = 0
    loss: float = float("nan")  # of the last inner step
    seconds: float = 0.0

    def add(self, metrics: InnerMetrics) -> None:
        self.inner_steps += 1
        self.tokens += metrics.tokens
        self.loss = metrics.loss


Report = Callable[[Plan, int, InnerMetrics], None]


def train(mesh: ElasticDeviceMesh, own: recipes.Island, directory: Path, report: Report = lambda *_: None) -> Summary:
    """DiLoCo (arXiv 2311.08105, algorithm 1) on one island, until the run is finished.

    `own` is the recipe's [island] table of this machine; `directory` keeps the inner checkpoints.
    Raises UserError when this island may not, or cannot, go on.
    """
    recipe = recipes.with_island(mesh.swarm.run.recipe, own)
    data = Loader(mesh.swarm.data_dir(), recipe)
    island = build(recipe, data)
    sweep(directory / "inner")
    saved = InnerCheckpoints(island, directory / "inner", own.checkpoint_keep)
    saved.restore()
    weights = heldout_weights(data.manifest, recipe.stage[0].mixture)
    summary = Summary(mesh.swarm.island)
    started = time.monotonic()
    for order in mesh.swarm.orders():
        if isinstance(order, Adopt):  # committed for all of us: start the next step from the same bits
            mesh.swarm.adopt(order, island.parameters())
            summary.outer_steps = order.step
            if own.evaluate_every and order.step % own.evaluate_every == 0:
                loss = heldout_loss(island, data.heldout(own.micro_batch, LOOK_WINDOWS), weights)
                note_heldout(directory, order.step, loss)
        else:
            losses = inner_steps(mesh, island, data, order, recipe, report, summary)
            if len(losses) == order.inner_steps:
                tokens = order.num_samples * recipe.inner.context_length
                mesh.swarm.propose(island.parameters(), tokens, sum(losses) / len(losses))
                if (order.step + 1) % own.checkpoint_every == 0:
                    saved.save(order.first_inner_step + order.inner_steps)
    summary.seconds = time.monotonic() - started
    return summary


def inner_steps(mesh: ElasticDeviceMesh, island: Island, data: Loader, plan: Plan, recipe: Recipe, report: Report,
                summary: Summary) -> list[float]:  # fmt: skip
    """Train alone on the plan's samples; the losses, fewer than planned when the swarm decided without us."""
    samples = (index for first, count in plan.lease for index in range(first, first + count))
    batches = data.batches(samples, plan.stage_starts, recipe.windows_per_step, recipe.island.micro_batch)
    losses: list[float] = []
    for number, batch in enumerate(batches):
        metrics = island.inner_step(batch, plan.first_inner_step + number)
        losses.append(metrics.loss)
        summary.add(metrics)
        report(plan, number + 1, metrics)
        if not mesh.swarm.progress(metrics.loss, metrics.tokens):
            break
    return losses


def build(recipe: Recipe, data: Loader) -> Island:
    """The island's model on its device, with its inner optimizer. Weights come with the first adoption."""
    if recipe.island.threads:
        torch.set_num_threads(recipe.island.threads)
    model = Llama(resolve(recipe.model, data.manifest.vocab_size))
    parallelize(model, recipe.island)
    return Island(model, recipe)


def note_heldout(directory: Path, step: int, loss: float) -> None:
    """Add a look at held-out loss to this island's `heldout.jsonl`."""
    with (directory / HELDOUT_FILE).open("ab") as file:
        file.write(msgspec.json.encode({"step": step, "loss": loss}) + b"\n")
