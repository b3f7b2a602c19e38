"""Whether the weights of a checkpoint are those of its model, and can be trained."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from atoll.errors import UserError
from atoll.words import listed

NUM_SHOWN = 3  # names in a sentence
FULL = {torch.float64, torch.float32, torch.bfloat16, torch.float16}  # weights that stand for themselves


def check_names(stored: Mapping[str, Tensor], model: nn.Module, where: Path) -> None:
    """Raises UserError, naming tensors, unless `stored` has those of `model`, in their shapes."""
    wanted = model.state_dict()
    faults = {
        "has no": sorted(wanted.keys() - stored.keys()),
        "does not expect": sorted(stored.keys() - wanted.keys()),
        "has in another shape": [
            name for name, value in stored.items() if name in wanted and value.shape != wanted[name].shape
        ],
        "has quantised": [name for name, value in stored.items() if value.dtype not in FULL],
    }
    texts = [f"{what} {_some(names)}" for what, names in faults.items() if names]
    if texts:
        raise UserError(
            f"{where}: its weights are not those of its config.json: a model of it {listed(texts)}; give a "
            "checkpoint as transformers saves it"
        )


def check_finite(model: nn.Module, where: Path) -> None:
    """Raises UserError, naming a tensor, where a weight is NaN or infinite: such a model never trains."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{where}: {name} has weights that are NaN or infinite; give another checkpoint")


def _some(names: list[str]) -> str:
    return ", ".join(names[:NUM_SHOWN]) + (
        f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    )
