"""Losses from hidden states without ever holding logits [tokens, vocabulary]: one chunked head for every objective.

Shapes: N tokens, D hidden size, V vocabulary, n tokens of one chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # the label of a token that does not count
# A chunk's logits stay in a core's cache (2 MB in fp32), but it never has so few rows that adding up the gradient of
# `weight`, all of which each chunk touches, costs more than computing it.
CHUNK_ELEMENTS = 1 << 19
CHUNK_ROWS = 256


class ChunkSums(NamedTuple):
    """What an objective says of one chunk."""

    minimised: Tensor  # scalar
    reported: Tensor  # scalar, for people
    gradient: Tensor  # of `minimised` at the logits [n, V]


Objective = Callable[..., ChunkSums]  # of the chunk's logits [n, V] and its rows of the per-token inputs


class CrossEntropy(NamedTuple):
    """Sums over the tokens that count."""

    objective: Tensor  # scalar to minimise: cross-entropy and weighted max-z-loss
    loss: Tensor  # scalar without gradient: cross-entropy alone, in nats
    num_tokens: Tensor  # scalar int64


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0.0) -> CrossEntropy:
    """Sums over the tokens whose label is not -100, for hidden [..., D], weight [V, D] and labels int64 [...].

    `z_loss` weighs the square of each token's largest logit (max-z-loss, arXiv 2309.10305).
    """

    def objective(logits: Tensor, labels: Tensor) -> ChunkSums:
        counts = labels != IGNORED
        index = labels.where(counts, 0).unsqueeze(1)
        largest = logits.amax(1)
        gradient = logits.softmax(1)
        # log(sum(exp(logits))) from the softmax's own largest entry: one pass over exp, and it cannot underflow.
        log_sum = largest - gradient.amax(1).log()
        loss = (log_sum - logits.gather(1, index).squeeze(1)).where(counts, 0.0).sum()
        gradient.scatter_add_(1, index, gradient.new_full(index.shape, -1.0))
        minimised = loss
        if z_loss:
            minimised = loss + z_loss * largest.square().where(counts, 0.0).sum()
            gradient.scatter_add_(1, logits.argmax(1, keepdim=True), 2 * z_loss * largest.unsqueeze(1))
        gradient.mul_(counts.unsqueeze(1))
        return ChunkSums(minimised, loss, gradient)

    labels = labels.flatten()
    minimised, reported = chunked(hidden.flatten(0, -2), weight, objective, labels)
    return CrossEntropy(minimised, reported, (labels != IGNORED).sum())


def chunked(hidden: Tensor, weight: Tensor, objective: Objective, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The objective's two sums over all N tokens, for hidden [N, D], weight [V, D] and inputs [N, ...].

    Only the first carries a gradient, to `hidden` and `weight`. Logits are fp32 (fp64 where the weights are).
    """
    with_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _Chunked.apply(hidden, weight, objective, with_gradient, *inputs)  # pyright: ignore[reportReturnType]


class _Chunked(torch.autograd.Function):
    """Takes the gradient in the forward pass, since backward only multiplies it by a scalar.

    So no logits are computed twice, and what is kept has the size of `hidden` and `weight`, not of the logits.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, objective: Objective, with_gradient: bool, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = max(CHUNK_ROWS, CHUNK_ELEMENTS // weight.shape[0])
        precision = torch.promote_types(weight.dtype, torch.float32)
        sums: list[Tensor] = []
        hidden_gradients: list[Tensor] = []
        weight_gradient = torch.zeros_like(weight, dtype=precision) if with_gradient else None
        for start in range(0, hidden.shape[0], rows):
            chunk = slice(start, start + rows)
            logits = (hidden[chunk] @ weight.T).to(precision)
            minimised, reported, gradient = objective(logits, *(x[chunk] for x in inputs))
            sums.append(torch.stack((minimised, reported)))
            if weight_gradient is not None:
                hidden_gradients.append(gradient.to(weight.dtype) @ weight)
                weight_gradient.addmm_(gradient.T, hidden[chunk].to(precision))
        if weight_gradient is not None:
            ctx.save_for_backward(torch.cat(hidden_gradients), weight_gradient.to(weight.dtype))
        minimised, reported = torch.stack(sums).sum(0).unbind()
        ctx.mark_non_differentiable(reported)
        return minimised, reported

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale_of_sum = scale[0].to(weight_gradient.dtype)
        constants = (None,) * (len(ctx.needs_input_grad) - 2)
        return hidden_gradient * scale_of_sum, weight_gradient * scale_of_sum, *constants
