"""Losses from hidden states without ever holding logits [tokens, vocabulary]: one chunked head for every
objective.

Shapes: N tokens, D hidden size, V vocabulary, n tokens of one chunk.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # the label of a token that does not count
# A chunk's logits stay in a core's cache (2 MB in fp32), but it never has so few rows that adding up the
# gradient of `weight`, all of which each chunk touches, costs more than computing it.
CHUNK_ELEMENTS = 1 << 19
CHUNK_ROWS = 256


class ChunkSums(NamedTuple):
    """What an objective says of one chunk."""

    minimised: Tensor  # scalar
    reported: Tensor  # scalar, for people
    gradient: Tensor  # of `minimised` at the logits [n, V], but for a factor of each row:
    weights: Tensor  # [n, 1]; so that no pass over [n, V] is spent on it


Objective = Callable[
    ..., ChunkSums
]  # of the chunk's logits [n, V], which it may overwrite, and rows of the per-token inputs


class Sums(NamedTuple):
    """Sums over the tokens that count."""

    objective: Tensor  # scalar to minimise
    loss: Tensor  # scalar without gradient, in nats: the objective without regularisation
    num_tokens: Tensor  # scalar int64


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0.0) -> Sums:
    """Cross-entropy and max-z-loss of the tokens whose label is not -100.

    For hidden [..., D], weight [V, D] and labels int64 [...].
    `z_loss` weighs the square of each token's largest logit (max-z-loss, arXiv 2309.10305).
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


def top_k_divergence(hidden: Tensor, weight: Tensor, labels: Tensor, words: Tensor, teacher: Tensor) -> Sums:
    """KL(teacher || model) of the tokens whose label is not -100, for hidden [..., D], weight [V, D], labels
    [...].

    The teacher is known by its logits (or log-probabilities) `teacher` [..., k] of `words` int64 [..., k],
    all different, and taken to say nothing else: they are normalised over these k words, the model over all
    V.
    """

    def objective(logits: Tensor, labels: Tensor, words: Tensor, teacher: Tensor) -> ChunkSums:
        counts = (labels != IGNORED).unsqueeze(1)
        wanted = teacher.to(logits.dtype).log_softmax(1)
        differences = wanted - logits.gather(1, words)
        log_sum, _, gradient = _softmax(logits)
        divergence = (wanted.exp() * (differences + log_sum)).where(counts, 0.0).sum()
        gradient.scatter_add_(1, words, -wanted.exp())
        return ChunkSums(divergence, divergence, gradient, counts)

    labels, k = labels.flatten(), words.shape[-1]
    per_token = labels, words.view(-1, k), teacher.reshape(-1, k)
    return Sums(*chunked(hidden.flatten(0, -2), weight, objective, *per_token), (labels != IGNORED).sum())


def log_probabilities(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Each label's log-probability, fp32 [...] like `labels`, and 0 where it is -100; for hidden [..., D],
    weight [V, D].

    Carries a gradient to `hidden` and `weight`, whatever is made of the numbers; for it, logits are computed
    again.
    """
    flat = labels.flatten()
    # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    return _LogProbabilities.apply(hidden.flatten(0, -2), weight, flat).view(labels.shape)


def chunked(hidden: Tensor, weight: Tensor, objective: Objective, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The objective's two sums over all N tokens, for hidden [N, D], weight [V, D] and inputs [N, ...].

    Only the first carries a gradient, to `hidden` and `weight`, and once. Logits are fp32 (fp64 where the
    weights are).
    """
    with_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    # pyright: ignore[reportReturnType]
    return _Chunked.apply(hidden, weight, objective, with_gradient, *inputs)


class Gradients(NamedTuple):
    hidden: Tensor  # [N, D], in its dtype
    weight: Tensor  # [V, D]


class _Chunked(torch.autograd.Function):
    """Takes the gradient in the forward pass, since backward only multiplies it by a scalar.

    So no logits are computed twice, and what is kept has the size of `hidden` and `weight`, not of the
    logits.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, objective: Objective, with_gradient: bool, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        sums: list[Tensor] = []

        def summed(logits: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            minimised, reported, gradient, weights = objective(logits, *inputs)
            sums.append(torch.stack((minimised, reported)))
            return gradient, weights

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
        # In place, and given away: a second backward pass fails, and [V, D] numbers are held once, not twice.
        of_hidden, of_weight = ctx.__dict__.pop("gradients")
        constants = (None,) * (len(ctx.needs_input_grad) - 2)
        return of_hidden.mul_(scale[0]), of_weight.mul_(scale[0]), *constants


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, labels)
        found: list[Tensor] = []
        for chunk, logits in _chunks(hidden, weight):
            counts = labels[chunk] != IGNORED
            chosen = logits.gather(1, labels[chunk].where(counts, 0).unsqueeze(1)).squeeze(1)
            found.append((chosen - logits.logsumexp(1)).where(counts, 0.0))
        return torch.cat(found)

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
    """The logits [n, V] of a few tokens at a time, in fp32 (fp64 where the weights are); gone when the next
    ones come.

    All in the same memory, since the first touch of fresh pages is dear beside the product (docs/LOG.md).
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
    """The gradients of what has, at the logits, the gradient that `at_logits(logits, *inputs)` gives with its
    rows' weights.

    Summed in fp32 (fp64) over the chunks.
    """
    of_hidden: list[Tensor] = []
    of_weight = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    for chunk, logits in _chunks(hidden, weight):
        gradient, weights = at_logits(logits, *(x[chunk] for x in inputs))
        of_hidden.append((gradient.to(weight.dtype) @ weight).mul_(weights))
        weighted = hidden[chunk].to(gradient.dtype) * weights
        of_weight.addmm_(gradient.T, weighted, beta=1 if chunk.start else 0)  # 0 looks at no old value
    return Gradients(torch.cat(of_hidden), of_weight.to(weight.dtype))


class _Softmax(NamedTuple):
    log_sum: Tensor  # log(sum(exp(logits))) [n, 1]
    largest: Tensor  # logit [n, 1]
    probabilities: Tensor  # [n, V]


def _softmax(logits: Tensor) -> _Softmax:
    """Of logits [n, V], in their memory."""
    largest = logits.amax(1, keepdim=True)
    probabilities = torch.softmax(logits, 1, out=logits)
    # The largest probability is at least 1 / V, so its logarithm is exact enough.
    return _Softmax(largest - probabilities.amax(1, keepdim=True).log(), largest, probabilities)
