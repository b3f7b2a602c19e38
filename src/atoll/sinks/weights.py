"""Weights & Biases: a run of theirs for a run of ours. `WANDB_MODE=offline` keeps it on this machine."""

from collections.abc import Iterable
from pathlib import Path

from atoll.sinks.curves import Points
from atoll.sinks.figures import Figure

STEP = "outer step"  # a curve of its own: their step only ever grows, and an outer step may be done again


class Wandb:
    """Logs curves."""

    def __init__(self, project: str, run_id: str, directory: Path) -> None:
        """`directory`: for what is written on this machine."""
        import wandb  # pyright: ignore[reportMissingImports]

        directory.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project,
            name=run_id,
            dir=str(directory),
            config={"run_id": run_id},
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric=STEP)
        self._points = Points()

    def take(self, figures: Iterable[Figure], step: int, time: float, notable: bool) -> None:
        if points := self._points.until(figures, notable):
            self._run.log({**points, STEP: step, "time": time})

    def close(self) -> None:
        self._run.finish()
