"""What a run takes of a machine that joins it."""

from pathlib import Path

import msgspec

from atoll import recipe as recipes
from atoll.recipe import Recipe
from atoll.simulate.plan import DAY_SECONDS
from atoll.simulate.sizes import most_payloads, sizes
from atoll.status import Overview
from atoll.swarm.records import RunInfo

TOKEN_BYTES = 4  # of prepared data, at most


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What one island of a run takes, in bytes, and how the run goes."""

    name: str
    num_parameters: int  # that are trained
    codec: str
    inner_steps: int
    checkpoint_every: int
    disk: float  # at the worst moment
    disk_there: float  # of it, already taken by what lies here
    data: float  # of disk, at most, by the run's end
    mapped: float  # of memory, best
    trainer: float  # of the device that trains, activations aside
    payload: float
    join: float  # what a joiner receives
    num_islands: int  # with this one
    inner_step_seconds: float | None  # of the islands that are in it now; None: nobody trains yet

    @staticmethod
    def of(run: RunInfo, overview: Overview | None, run_dir: Path, is_member: bool) -> "Needs":
        """Of a run that there is; what lies in `run_dir` already counts. Raises UserError for its recipe."""
        recipe = recipes.parse(run.recipe, run.run_id)
        count = sum(tensor.num_elements for tensor in run.layout.tensors)
        taken = sizes(count, recipe.outer.codec, recipe.outer.checkpoint_every)
        others = overview.num_islands if overview else 0
        return Needs(
            name=run.name,
            num_parameters=count,
            codec=recipe.outer.codec,
            inner_steps=recipe.outer.inner_steps,
            checkpoint_every=recipe.outer.checkpoint_every,
            disk=taken.disk,
            disk_there=_bytes_in(run_dir),
            data=0.0 if recipe.model.own else _data_bytes(recipe, overview.step if overview else 0),
            mapped=taken.mapped,
            trainer=taken.trainer,
            payload=taken.payload,
            join=0.0 if is_member else taken.join,
            num_islands=max(1, others + (not is_member)),
            inner_step_seconds=_inner_step_seconds(recipe, overview),
        )

    @property
    def disk_left(self) -> float:
        """Bytes of disk that must be free here now, the run's data aside, which comes bit by bit."""
        return max(0.0, self.disk - self.disk_there)

    @property
    def step_bytes(self) -> float:
        """Bytes that an outer step sends, and receives, at most, of an island that reduces its share."""
        return max(1.0, most_payloads(self.num_islands)) * self.payload

    @property
    def outer_steps_a_day(self) -> float | None:
        """By the pace of those who train now, and at most: reducing is not counted; None: nobody does."""
        if not self.inner_step_seconds:
            return None
        return DAY_SECONDS / (self.inner_steps * self.inner_step_seconds)


def gb(num_bytes: float) -> str:
    """Bytes for people: 1.24 GB, 18 MB."""
    count, unit = (num_bytes / 1e9, "GB") if num_bytes >= 1e9 else (num_bytes / 1e6, "MB")
    return f"{count:,.0f} {unit}" if count >= 10 else f"{count:.2g} {unit}"


def _inner_step_seconds(recipe: Recipe, overview: Overview | None) -> float | None:
    if overview is None or not overview.num_islands or not overview.tokens_per_second:
        return None
    return recipe.inner.tokens_per_step * overview.num_islands / overview.tokens_per_second


def _data_bytes(recipe: Recipe, step: int) -> float:
    """Of prepared data, at most, that one island reads in the outer steps that are left."""
    steps = (recipe.num_outer_steps - step) * recipe.outer.inner_steps
    return max(0, steps) * recipe.inner.tokens_per_step * TOKEN_BYTES


def _bytes_in(directory: Path) -> float:
    """What the files below a directory take of the disk; holes take nothing."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += 512 * getattr(path.lstat(), "st_blocks", 0)
        except OSError:
            continue  # gone meanwhile
    return float(total)
