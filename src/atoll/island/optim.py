"""The inner optimizers: torch's own, with weight decay on matrices only."""

import torch
from torch import nn

from atoll import recipe
from atoll.model.hf import Model


def build(model: Model, optimizer: recipe.AdamW | recipe.Muon) -> list[torch.optim.Optimizer]:
    """The recipe's optimizers: one AdamW, or Muon for the blocks' matrices and AdamW for everything else.

    Every parameter group keeps its full learning rate under `initial_lr`.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if isinstance(optimizer, recipe.AdamW):
        optimizers = [
            _adamw(parameters, optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay)
        ]
    else:
        in_blocks = {id(parameter) for parameter in model.blocks.parameters()}
        hidden = [p for p in parameters if p.ndim == 2 and id(p) in in_blocks]
        rest = [p for p in parameters if p.ndim != 2 or id(p) not in in_blocks]
        adamw = recipe.AdamW()
        optimizers = [
            torch.optim.Muon(
                hidden, lr=optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
            ),
            _adamw(rest, optimizer.adamw_lr, adamw.betas, adamw.eps, optimizer.weight_decay),
        ]
    for group in (group for each in optimizers for group in each.param_groups):
        group["initial_lr"] = group["lr"]
    return optimizers


def scale_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its full one."""
    for group in (group for each in optimizers for group in each.param_groups):
        group["lr"] = group["initial_lr"] * factor


def _adamw(
    parameters: list[nn.Parameter], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
