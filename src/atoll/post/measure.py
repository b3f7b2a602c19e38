"""What the objective of prepared data says of a checkpoint, on what was held out."""

from pathlib import Path
from typing import Any

from atoll.post.metric import HeldoutLoss
from atoll.run.directory import RunDir


def measured(checkpoint: Path, run: RunDir) -> dict[str, Any]:
    """The loss by name. Raises UserError for a checkpoint or data that cannot be read."""
    return {"loss": HeldoutLoss(run.path)(checkpoint)}
