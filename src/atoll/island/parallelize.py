"""Where an island's model lives."""

import torch
from torch import nn

from atoll import recipe
from atoll.errors import UserError


def device(island: recipe.Island) -> torch.device:
    """The device that `island.device` names; `auto` is the accelerator torch finds, else the CPU.

    Raises UserError where torch does not know the name or the device is not there.
    """
    if island.device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        found = torch.device(island.device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"island.device: {island.device!r} is not to be had here; use 'auto' or 'cpu'") from error
    return found


def parallelize(model: nn.Module, island: recipe.Island) -> nn.Module:
    """The model on the island's device."""
    return model.to(device(island))
