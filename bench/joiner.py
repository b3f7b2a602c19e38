"""What a joiner's inner optimizer should begin with: no moments, no moments and a new warm-up, old ones, or a
donor's.

    python bench/joiner.py [--incumbents 1] [--joins 5 12] [--seeds 3] [--dir DIR] [key=value ...]

The demo's recipe, in one process, without a network or a codec. `incumbents` islands train from the start;
before outer step J another one joins, in every way that there is, from the same snapshot. One row for each
way and seed: the joiner's mean inner loss in its first and second outer step less the incumbents', the norm
of its first pseudo-gradient over theirs, and held-out loss after its first, third and fifth commit, less that
of `donor` (in nats). Some twenty minutes; fewer seeds and joins take less. Its figures are in
docs/decisions/0010-joiners-moments.md.
"""

import copy
import tempfile
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from harness.report import Report, arguments
from torch import Tensor

from atoll import recipe as recipes
from atoll.data.loader import Loader
from atoll.data.unigram import heldout_weights
from atoll.island.heldout import heldout_loss
from atoll.island.step import Island
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.objective import build
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare

OLD_STEPS = 5  # outer steps for which the one with old moments was away
LOOKS = (1, 3, 5)  # commits after the joiner's first step at which held-out loss is looked at
State = list[dict[str, Any]]


@dataclass
class Swarm:
    """The outer state, and the islands' optimizers; one model serves all of them in turns."""

    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor]
    optimizers: list[State]
    step: int = 0
    before: list[list[State]] = field(default_factory=list)  # the optimizers after each outer step so far


class Bench:
    def __init__(self, recipe: Recipe, data: Loader) -> None:
        self.recipe, self.data = recipe, data
        model = Llama(resolve(recipe.model, data.manifest.vocab_size))
        model.init_weights(recipe.seed)
        self.island = Island(model, build(recipe, data.manifest.vocab_size), recipe)
        self.weights = heldout_weights(data.manifest, recipe.stage[0].mixture)
        self.fresh = self.state()
        self.sample = recipe.seed * 1_000_000  # other seeds train on other samples as well
        self.heldout = list(data.heldout(8, 24))

    def state(self) -> State:
        return copy.deepcopy([optimizer.state_dict() for optimizer in self.island.optimizers])

    def start(self, incumbents: int) -> Swarm:
        outer = {name: value.clone() for name, value in self.island.parameters().items()}
        return Swarm(outer, {n: torch.zeros_like(v) for n, v in outer.items()}, [self.fresh] * incumbents)

    def outer_step(self, swarm: Swarm, anew: tuple[int, int] = (0, 0)) -> tuple[list[float], list[float]]:
        """All islands train, and one update; their mean losses, and the norms of their pseudo-gradients.

        The last island warms up again from an inner step on, over so many: `anew`.
        """
        inner = self.recipe.outer.inner_steps
        losses, norms, total = [], [], {n: torch.zeros_like(v) for n, v in swarm.parameters.items()}
        optimizers: list[State] = []
        for number, state in enumerate(swarm.optimizers):
            self.island.load(swarm.parameters)
            for optimizer, values in zip(self.island.optimizers, state, strict=True):
                optimizer.load_state_dict(copy.deepcopy(values))
            self.island.warm_up_again(*(anew if number == len(swarm.optimizers) - 1 else (0, 0)))
            share = self.recipe.windows_per_step
            samples = range(self.sample, self.sample + inner * share)
            self.sample += inner * share
            for at, batches in enumerate(self.data.batches(samples, [0], share, share)):
                self.island.inner_step([self.island.place(b) for b in batches], swarm.step * inner + at)
            done = self.island.read()
            losses.append(sum(m.loss for m in done if m.loss is not None) / len(done))
            gradient = {n: swarm.parameters[n] - value for n, value in self.island.parameters().items()}
            norms.append(float(torch.cat([g.flatten() for g in gradient.values()]).norm()))
            for name, value in gradient.items():
                total[name] += value / len(swarm.optimizers)
            optimizers.append(self.state())
        objective = self.recipe.objective
        for name, value in total.items():
            swarm.momentum[name] = objective.outer_momentum * swarm.momentum[name] + value
            swarm.parameters[name] = swarm.parameters[name] - objective.outer_lr * (
                value + objective.outer_momentum * swarm.momentum[name]
            )
        swarm.optimizers, swarm.step = optimizers, swarm.step + 1
        swarm.before.append(optimizers)
        return losses, norms

    def look(self, swarm: Swarm) -> float:
        self.island.load(swarm.parameters)
        return heldout_loss(self.island, self.heldout, self.weights)


def ways(bench: Bench, swarm: Swarm) -> dict[str, tuple[State | None, int]]:
    """The optimizer that a joiner begins with, and over how many inner steps it warms up again."""
    inner = bench.recipe.outer.inner_steps
    donor = swarm.optimizers[0]
    found: dict[str, tuple[State | None, int]] = {
        "donor": (donor, 0),
        "nobody joins": (None, 0),
        "fresh": (bench.fresh, 0),
    }
    found |= {
        f"fresh, {steps} steps of warm-up": (bench.fresh, steps) for steps in (inner // 2, inner, 2 * inner)
    }
    if swarm.step > OLD_STEPS:
        found[f"own, {OLD_STEPS} outer steps old"] = (swarm.before[-1 - OLD_STEPS][0], 0)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--dir", type=Path, help="keep the prepared data here (default: nowhere)")
    parser.add_argument("--incumbents", type=int, default=1)
    parser.add_argument("--joins", type=int, nargs="+", default=[5, 12])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    report = Report("joiner", options, keys=("way", "incumbents", "join", "seed", "overrides"))
    torch.set_num_threads(1)
    recipe = recipes.load("demo", options.overrides)
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as temporary:
        directory = options.dir or Path(temporary)
        prepare(recipe, RunDir(directory), lambda *_: None)
        measure(recipe, directory, options, report)


def measure(recipe: Recipe, directory: Path, options: Namespace, report: Report) -> None:
    """All ways of all joins, for one seed after the other."""
    for seed in range(options.seeds):
        bench = Bench(msgspec.structs.replace(recipe, seed=seed), Loader(directory / "data", recipe))
        swarm = bench.start(options.incumbents)
        for join in options.joins:
            while swarm.step < join:
                bench.outer_step(swarm)
            at, rows = bench.sample, []
            for name, (state, rewarm) in ways(bench, swarm).items():
                branch, bench.sample = copy.deepcopy(swarm), at  # every way on the same samples
                if state is not None:
                    branch.optimizers.append(state)
                facts: dict[str, Any] = {
                    "way": name,
                    "incumbents": options.incumbents,
                    "join": join,
                }
                facts |= {"seed": seed, "overrides": " ".join(options.overrides)}
                heldout: list[float] = []
                for commit in range(1, max(LOOKS) + 1):
                    losses, norms = bench.outer_step(branch, (join * recipe.outer.inner_steps, rewarm))
                    if state is not None and commit <= 2:
                        others = sum(losses[:-1]) / options.incumbents
                        facts[f"loss_{commit}"] = round(losses[-1] - others, 4)
                    if state is not None and commit == 1:
                        facts["norm"] = round(norms[-1] / (sum(norms[:-1]) / options.incumbents), 3)
                    if commit in LOOKS:
                        heldout.append(bench.look(branch))
                rows.append((facts, heldout))
            for facts, heldout in rows:
                differences = [
                    round(ours - donors, 4) for ours, donors in zip(heldout, rows[0][1], strict=True)
                ]
                report.add(facts | {"heldout": [round(x, 4) for x in heldout], "over_donor": differences})


if __name__ == "__main__":
    main()
