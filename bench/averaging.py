"""Held-out loss of post-training by a swarm of 4 beside one island, by outer rate and momentum.

    python bench/averaging.py [--outer-steps 4] [--inner-steps 5] [--seeds 3]

A tiny model, in one process: the islands take turns, and the outer step is the formula that agents apply.
The one island reads in each inner step what the four read, so it trains on the same rows in the same order.
SFT starts from random weights, DPO from a model that has read its pairs. Run it from the repository's root:
it reads ../shared. About five minutes.
"""

import copy
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import torch
from harness.report import Report, arguments
from torch import Tensor

from atoll import recipe as recipes
from atoll.data.loader import Batch, Loader
from atoll.island.step import Island
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.objective import build
from atoll.objective.preference import by_document
from atoll.recipe import Recipe
from atoll.recipe.objective import REFERENCE
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare

KEYS = ("objective", "outer_lr", "outer_momentum")
NUM_ISLANDS = 4
WARM_STEPS = 60  # on the pairs' own texts, before preferences are learned
CORPUS = Path("../shared/corpus")
SETTINGS = [(0.7, 0.9), (1.0, 0.5), (1.0, 0.0)]
RATES = {"sft": 3e-3, "dpo": 1e-3}
State = dict[str, Tensor]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--outer-steps", type=int, default=4)
    parser.add_argument("--inner-steps", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objectives", nargs="+", choices=RATES, default=list(RATES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("averaging", options, keys=KEYS, packages=("torch",))
    for objective in options.objectives:
        with tempfile.TemporaryDirectory() as directory:
            recipe = recipe_of(Path(directory), objective)
            run_dir = RunDir(Path(directory) / "run")
            prepare(recipe, run_dir, lambda _: None)
            seeds = [Bench(recipe, run_dir, seed) for seed in range(options.seeds)]
            alone = [bench.alone(options.outer_steps * options.inner_steps) for bench in seeds]
            for lr, momentum in SETTINGS:
                swarm = [b.swarm(options.outer_steps, options.inner_steps, lr, momentum) for b in seeds]
                report.add(
                    {
                        "row": f"{objective}: a swarm of {NUM_ISLANDS} beside one island",
                        "objective": objective,
                        "outer_lr": lr,
                        "outer_momentum": momentum,
                        "outer_steps": options.outer_steps,
                        "inner_steps": options.inner_steps,
                        "swarm": statistics.mean(swarm),
                        "alone": statistics.mean(alone),
                        "ratio": statistics.mean(swarm) / statistics.mean(alone),
                        "start": statistics.mean(bench.start_loss for bench in seeds),
                        "by_seed": [round(loss, 4) for loss in swarm],
                        "alone_by_seed": [round(loss, 4) for loss in alone],
                    }
                )


def recipe_of(directory: Path, objective: str) -> Recipe:
    """A recipe of a tiny model on instructions, or on pairs, that come with the project."""
    rows = directory / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of(objective)))
    text = f"""
        name = "averaging"
        heldout_fraction = 0.15
        tokenizer.train = 1024
        sources.rows.jsonl = "{rows}"
        stage = [{{ until = 1000, mixture = {{ rows = 1 }} }}]
        objective.type = "{objective}"
        outer.inner_steps = 5
        model = {{ preset = "demo", hidden_size = 64, intermediate_size = 192, vocab_size = 1024 }}
        [inner]
        context_length = 512
        tokens_per_step = 1024
        optimizer = {{ type = "adamw", lr = {RATES[objective]} }}
        schedule.type = "constant"
    """
    (directory / "recipe.toml").write_text(text)
    return recipes.load(directory / "recipe.toml")


def rows_of(objective: str) -> Iterator[dict[str, Any]]:
    if objective == "dpo":
        for row in json.loads((CORPUS / "preferences-300.json").read_text("utf-8")):
            prompt = row["conversations"][-1]["value"][:400]
            sides = {side: row[side]["value"][:300] for side in ("chosen", "rejected")}
            if sides["chosen"] != sides["rejected"]:
                yield {"prompt": prompt, **sides}
        return
    for line in (CORPUS / "instructions-175.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        for each in row["instances"]:
            yield {
                "prompt": f"{row['instruction']}\n{each['input']}"[:600],
                "completion": each["output"][:600],
            }


class Bench:
    """One seed of one objective."""

    def __init__(self, recipe: Recipe, run_dir: RunDir, seed: int) -> None:
        self.recipe = msgspec.structs.replace(recipe, seed=seed)
        self.data = Loader(run_dir.data, self.recipe)
        self.windows = self.recipe.windows_per_step
        self.heldout = [batch for _, batch in self.data.heldout(4)]
        self.start = self.started()
        self.start_loss = self.loss(self.start)

    def island(self, parameters: State, objective: Any = None) -> Island:
        described = msgspec.structs.replace(self.recipe, objective=objective or self.recipe.objective)
        model = Llama(resolve(described.model, self.data.manifest.vocab_size))
        model.init_weights(described.seed)
        island = Island(model, build(described, self.data.manifest.vocab_size), described)
        island.load(parameters or island.parameters())
        return island

    def started(self) -> State:
        """The parameters that training begins with; the pairs' reference is of them."""
        island = self.island({}, recipes.Sft())
        if REFERENCE in self.recipe.objective.columns:
            for step, batches in enumerate(self.steps(range(500, 500 + WARM_STEPS))):
                island.inner_step([island.place(batch) for batch in batches], step)
            island.read()
        return copied(island.parameters())

    def steps(self, numbers: range) -> Iterator[list[Batch]]:
        """The micro-batches of these inner steps of one island."""
        samples = range(numbers.start * self.windows, numbers.stop * self.windows)
        return self.data.batches(samples, [0], self.windows, 4)

    def placed(self, island: Island, batches: Sequence[Batch]) -> list[Any]:
        return [island.place(self.with_reference(batch)) for batch in batches]

    def with_reference(self, batch: Batch) -> Batch:
        if REFERENCE not in self.recipe.objective.columns:
            return batch
        if not hasattr(self, "reference"):
            self.reference = self.island(self.start)
        with torch.no_grad():
            values, num_labels = by_document(self.reference.model, self.reference.place(batch))
        return batch._replace(by_document={REFERENCE: values.where(num_labels > 0, torch.nan).numpy()})

    def loss(self, parameters: State) -> float:
        self.start = getattr(self, "start", parameters)
        total, count = self.island(parameters).evaluate([self.with_reference(b) for b in self.heldout])
        return total / count

    def alone(self, num_steps: int) -> float:
        """The held-out loss of one island, whose inner steps read what those of all islands read."""
        island, steps = self.island(self.start), self.steps(range(num_steps * NUM_ISLANDS))
        for number in range(num_steps):
            batches = [batch for step in islice(steps, NUM_ISLANDS) for batch in step]
            island.inner_step(self.placed(island, batches), number)
        island.read()
        return self.loss(copied(island.parameters()))

    def swarm(self, outer_steps: int, inner_steps: int, lr: float, momentum: float) -> float:
        """The held-out loss of a swarm with this outer optimizer."""
        outer = copied(self.start)
        velocity = {name: torch.zeros_like(value) for name, value in outer.items()}
        islands = [self.island(self.start) for _ in range(NUM_ISLANDS)]
        steps = self.steps(range(outer_steps * inner_steps * NUM_ISLANDS))
        for number in range(outer_steps * inner_steps):
            for island in islands:  # in turn, so that all read what one island reads in this step
                island.inner_step(self.placed(island, next(steps)), number)
            if (number + 1) % inner_steps:
                continue
            counts = [sum(each.count for each in island.read()) for island in islands]
            for name, value in outer.items():
                gradient = sum(
                    count / sum(counts) * (value - island.parameters()[name])
                    for count, island in zip(counts, islands, strict=True)
                )
                velocity[name] = momentum * velocity[name] + gradient
                outer[name] = value - lr * (gradient + momentum * velocity[name])
            for island in islands:
                island.load(outer)
        return self.loss(outer)


def copied(parameters: State) -> State:
    return copy.deepcopy(dict(parameters))


if __name__ == "__main__":
    main()
