"""The learning rates of an island that is there from the start, that joins later, and that comes back."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from unit.test_island_ranks import RECIPE

from atoll import recipe as recipes
from atoll.island.parallelize import device
from atoll.island.ranks import Ranks
from atoll.mesh import Adopt, Plan
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.train import train

INNER_STEPS = 4  # of RECIPE's outer step
WINDOWS = 4  # of RECIPE's inner step


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> RunDir:
    directory = tmp_path_factory.mktemp("joiner")
    (directory / "ranks.toml").write_text(RECIPE)
    run_dir = RunDir(directory / "run")
    prepare(recipes.load(directory / "ranks.toml"), run_dir, lambda *_: None)
    return run_dir


class Orders:
    """A swarm that gives one order to adopt, then plans for these outer steps."""

    island = "joiner"
    moved_on = False

    def __init__(self, run_dir: RunDir, steps: list[int]) -> None:
        shared = recipes.load(run_dir.recipe).shared()
        self.run = SimpleNamespace(recipe=shared, layout=run_dir.state_0().layout)
        self._data, self._steps, self.private_dir = run_dir.data, steps, run_dir.private

    def orders(self) -> Iterator[Adopt | Plan]:
        yield Adopt(self._steps[0], b"", b"")
        for step in self._steps:
            yield Plan(
                term=None,
                step=step,
                parent=b"",
                island="",
                lease=((step * 16, INNER_STEPS * WINDOWS),),
                stage_starts=(0,),
                inner_steps=INNER_STEPS,
                first_inner_step=step * INNER_STEPS,
            )  # pyright: ignore[reportArgumentType]

    def adopt(self, order: Adopt, parameters: dict[str, torch.Tensor]) -> None:
        for parameter in parameters.values():
            parameter.normal_(std=0.02)

    def data_dir(self) -> Path:
        return self._data

    def provide(self, needed: Any) -> bool:
        return True

    def measured(self, **_: float) -> None:
        pass

    def progress(self, *_: object) -> bool:
        return True

    def propose(self, *_: object) -> None:
        pass


def rates(run_dir: RunDir, directory: Path, steps: list[int]) -> list[float]:
    """The factor on the learning rate in each inner step that an island in `directory` takes."""
    found: list[float] = []
    with closing(Ranks.of_torchrun()) as ranks:
        mesh: Any = SimpleNamespace(
            ranks=ranks, swarm=Orders(run_dir, steps), place=lambda name: ranks.device_mesh(device(name))
        )
        own = recipes.Island(device="cpu", micro_batch=2, read_every=1)
        train(mesh, own, directory, lambda plan, number, metrics: found.append(metrics.learning_rate / 1e-3))
    return found


def test_an_island_that_is_there_from_the_start_follows_the_schedule_alone(run_dir, tmp_path):
    assert rates(run_dir, tmp_path, [0, 1]) == [1.0] * 8


def test_a_joiner_warms_up_once_over_one_outer_step(run_dir, tmp_path):
    assert rates(run_dir, tmp_path, [3, 4]) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_an_island_that_comes_back_uses_its_own_moments_at_the_full_rate(run_dir, tmp_path):
    rates(run_dir, tmp_path, [0])
    assert rates(run_dir, tmp_path, [5]) == [1.0] * 4
