"""Losses from hidden states, computed chunk by chunk, so that the logits [N, V] never exist as a whole.

Shapes: N tokens, n tokens of one chunk, D hidden size, V vocabulary size, ... any leading dimensions.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # the label of a token that does not count in the loss
# A chunk's logits fit into a core's cache (2 MB in fp32). But each chunk adds to the whole gradient of
# `weight`, so it has at least CHUNK_ROWS rows: with fewer, the addition would cost more than the product.
CHUNK_ELEMENTS = 1 << 19
CHUNK_ROWS = 256


class ChunkSums(NamedTuple):
    """An objective's sums over the tokens of one chunk, and its gradient.

    `gradient` times `row_weights` is the gradient of `minimised` with respect to the logits. They are kept
    apart so that no pass over [n, V] is spent on the product.
    """

    minimised: Tensor  # scalar
    reported: Tensor  # scalar, for people to read
    gradient: Tensor  # [n, V]
    row_weights: Tensor  # [n, 1]


# Called with a chunk's logits [n, V], which it may overwrite, and the chunk's rows of each per-token input.
Objective = Callable[..., ChunkSums]


class Sums(NamedTuple):
    """Sums over the tokens that count in the loss."""

    objective: Tensor  # scalar to minimise
    loss: Tensor  # scalar without gradient, in nats: the objective without its regularisation
    num_tokens: Tensor  # scalar int64


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0.0) -> Sums:
    """Cross-entropy of the tokens whose label is not -100; its objective adds the max-z-loss.

    hidden [..., D], weight [V, D], labels int64 [...]. `z_loss` is the weight of the square of each token's
    largest logit (max-z-loss, arXiv 2309.10305).
    """

    def objective(logits: Tensor, labels: Tensor) -> ChunkSums:
        counts = (labels != IGNORED).unsqueeze(1)
        index = labels.unsqueeze(1).where(counts, 0)
        chosen = logits.gather(1, index)
        largest_index = logits.argmax(1, keepdim=True) if z_loss else None
        log_sum, largest, gradient = _softmax(logits)
        loss = minimised = (log_sum - chosen).where(counts, 0.0).sum()
        gradient.scatter_add_(1, index, gradient.new_full(index.shape, -1.0))
        if largest_index is not None:
            minimised = loss + z_loss * largest.square().where(counts, 0.0).sum()
            gradient.scatter_add_(1, largest_index, 2 * z_loss * largest)
        return ChunkSums(minimised, loss, gradient, counts)

    labels = labels.flatten()
    minimised, reported = chunked(hidden.flatten(0, -2), weight, objective, labels)
    return Sums(minimised, reported, (labels != IGNORED).sum())


def log_probabilities(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Each label's log-probability, fp32 [...] like `labels`, and 0 where the label is -100.

    hidden [..., D], weight [V, D], labels int64 [...]. Gradients flow to `hidden` and `weight`, whatever
    function of the result is minimised; the backward pass computes the logits again.
    """
    result: Any = _LogProbabilities.apply(hidden.flatten(0, -2), weight, labels.flatten())
    return result.view(labels.shape)


@torch.no_grad()
def top_log_probabilities(
    hidden: Tensor, weight: Tensor, count: int, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """(ids int64 [..., count], log-probabilities [..., count + 1]) of the likeliest tokens, best first.

    hidden [..., D], weight [V, D]. Only the first `vocab_size` ids count as tokens. The last log-probability
    is that of all others together; it is -inf where there are none.
    """
    ids: list[Tensor] = []
    logprobs: list[Tensor] = []
    for _, logits in _chunks(hidden.flatten(0, -2), weight):
        values, index = logits[:, :vocab_size].topk(min(count, vocab_size))
        log_sum = logits.logsumexp(1, keepdim=True)
        others = logits.scatter_(1, index, -torch.inf).logsumexp(1, keepdim=True)
        ids.append(index)
        logprobs.append(torch.cat((values, others), 1) - log_sum)
    leading = hidden.shape[:-1]
    return torch.cat(ids).view(*leading, -1), torch.cat(logprobs).view(*leading, -1)


def chunked(hidden: Tensor, weight: Tensor, objective: Objective, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(minimised, reported): the objective's sums over all N tokens.

    hidden [N, D], weight [V, D], inputs [N, ...]. Only `minimised` has a gradient, to `hidden` and `weight`,
    and only for one backward pass. Logits are fp32, or fp64 where the weights are.
    """
    with_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    result: Any = _Chunked.apply(hidden, weight, objective, with_gradient, *inputs)
    return result


class Gradients(NamedTuple):
    """The gradients of hidden states and weight, in their dtypes."""

    hidden: Tensor  # [N, D]
    weight: Tensor  # [V, D]


class _Chunked(torch.autograd.Function):
    """Computes the gradients in the forward pass; the backward pass only multiplies them by a scalar.

    So logits are computed once, and what is kept has the size of `hidden` and `weight`, not of the logits.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, objective: Objective, with_gradient: bool, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        sums: list[Tensor] = []

        def summed(logits: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            minimised, reported, gradient, row_weights = objective(logits, *inputs)
            sums.append(torch.stack((minimised, reported)))
            return gradient, row_weights

        if with_gradient:
            ctx.gradients = _gradients(hidden, weight, summed, *inputs)
        else:
            for chunk, logits in _chunks(hidden, weight):
                summed(logits, *(x[chunk] for x in inputs))
        minimised, reported = torch.stack(sums).sum(0).unbind()
        ctx.mark_non_differentiable(reported)
        return minimised, reported

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled in place and given away, so that [V, D] numbers are held once, not twice. A second backward
        # pass fails.
        of_hidden, of_weight = ctx.__dict__.pop("gradients")
        constants = (None,) * (len(ctx.needs_input_grad) - 2)
        return of_hidden.mul_(scale[0]), of_weight.mul_(scale[0]), *constants


class _LogProbabilities(torch.autograd.Function):
    """Log-probabilities of labels; their gradient at the logits is the one-hot label minus the softmax."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, labels)
        parts: list[Tensor] = []
        for chunk, logits in _chunks(hidden, weight):
            counts = labels[chunk] != IGNORED
            chosen = logits.gather(1, labels[chunk].where(counts, 0).unsqueeze(1)).squeeze(1)
            parts.append((chosen - logits.logsumexp(1)).where(counts, 0.0))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        def gradient(logits: Tensor, labels: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
            counts = labels != IGNORED
            index = labels.where(counts, 0).unsqueeze(1)
            result = _softmax(logits).probabilities
            result.scatter_add_(1, index, result.new_full(index.shape, -1.0))
            return result, -upstream.where(counts, 0.0).unsqueeze(1)

        hidden, weight, labels = ctx.saved_tensors
        return *_gradients(hidden, weight, gradient, labels, upstream[0]), None


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield, chunk by chunk, (slice of the tokens, their logits [n, V]), in fp32, or fp64 as `weight` is.

    All chunks use the same memory, so use the logits before the next ones come: the first touch of fresh
    pages costs much beside the product (docs/LOG.md).
    """
    rows = min(max(CHUNK_ROWS, CHUNK_ELEMENTS // weight.shape[0]), hidden.shape[0])
    logits = weight.new_empty(rows, weight.shape[0])
    for start in range(0, hidden.shape[0], rows):
        chunk = slice(start, min(start + rows, hidden.shape[0]))
        product = torch.mm(hidden[chunk], weight.T, out=logits[: chunk.stop - start])
        yield chunk, product.to(torch.promote_types(weight.dtype, torch.float32))


def _gradients(
    hidden: Tensor, weight: Tensor, at_logits: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor
) -> Gradients:
    """The gradients of a loss, given its gradient at the logits; summed over the chunks in fp32 (or fp64).

    `at_logits(logits, *inputs)` returns that gradient, for one chunk, as (gradient [n, V], row weights
    [n, 1]).
    """
    of_hidden: list[Tensor] = []
    of_weight = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    for chunk, logits in _chunks(hidden, weight):
        gradient, row_weights = at_logits(logits, *(x[chunk] for x in inputs))
        of_hidden.append((gradient.to(weight.dtype) @ weight).mul_(row_weights))
        weighted = hidden[chunk].to(gradient.dtype) * row_weights
        # With beta 0, in the first chunk, addmm_ does not read the uninitialised memory.
        of_weight.addmm_(gradient.T, weighted, beta=1 if chunk.start else 0)
    return Gradients(torch.cat(of_hidden), of_weight.to(weight.dtype))


class _Softmax(NamedTuple):
    log_sum: Tensor  # log(sum(exp(logits))) [n, 1]
    largest: Tensor  # logit [n, 1]
    probabilities: Tensor  # [n, V]


def _softmax(logits: Tensor) -> _Softmax:
    """The softmax of logits [n, V], written over them."""
    largest = logits.amax(1, keepdim=True)
    probabilities = torch.softmax(logits, 1, out=logits)
    # The largest probability is at least 1 / V, so its logarithm is exact enough.
    return _Softmax(largest - probabilities.amax(1, keepdim=True).log(), largest, probabilities)
