"""Distillation from a teacher whose distributions were captured beforehand (`atoll capture`).

Shapes: N tokens, n tokens of a chunk, V vocabulary size, K entries: K - 1 tokens, then the tail (entries.py).
"""

import torch
from torch import Tensor

from atoll import recipe as recipes
from atoll.model.head import IGNORED, ChunkSums, chunked
from atoll.objective.entries import Entries
from atoll.objective.objective import MicroBatch, Model, Placed, Sums, num_labels
from atoll.recipe.objective import TEACHER


class Distill:
    """KL(teacher || model) over the entries, times the temperature's square, mixed with cross-entropy.

    The model's distribution is put into the same entries: its probabilities of the teacher's tokens, and the
    sum of all others. Both are then sharpened or flattened by the temperature.
    """

    counts = "tokens"
    metrics = ("divergence",)

    def __init__(self, settings: recipes.Distill, vocab_size: int) -> None:
        self._settings = settings
        self._entries = Entries(vocab_size)

    def count(self, batch: MicroBatch) -> int:
        return num_labels(batch)

    def sums(self, model: Model, batch: Placed) -> Sums:
        hidden = model(batch.tokens, batch.mask)
        ids, logprobs = self._entries.decoded(batch.by_token[TEACHER])
        temperature, share = self._settings.temperature, self._settings.cross_entropy
        minimised, divergence = divergence_and_cross_entropy(
            hidden, model.head_weight, batch.labels, ids, logprobs, temperature, share
        )
        return Sums(minimised, minimised.detach(), {"divergence": divergence})


def divergence_and_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    ids: Tensor,
    logprobs: Tensor,
    temperature: float,
    share: float,
) -> tuple[Tensor, Tensor]:
    """((1 - share) divergence + share * cross-entropy, the divergence), summed over tokens that have labels.

    hidden [..., D], weight [V, D], labels int64 [...], ids int64 [..., K - 1], logprobs [..., K]: the
    teacher's,
    -inf for an entry that is not there, whose id is the first one's. Only the first result has a gradient.
    """

    def objective(logits: Tensor, labels: Tensor, ids: Tensor, logprobs: Tensor) -> ChunkSums:
        counts = (labels != IGNORED).unsqueeze(1)
        teacher = (logprobs.to(logits.dtype) / temperature).log_softmax(1)
        log_sum = logits.logsumexp(1, keepdim=True)
        index = labels.unsqueeze(1).where(counts, 0)
        cross_entropy = (log_sum - logits.gather(1, index)).where(counts, 0.0).sum()
        of_label = torch.softmax(logits, 1) if share else None
        of_tokens = (logits.gather(1, ids) - log_sum).masked_fill(logprobs[:, :-1].isneginf(), -torch.inf)
        others = logits.scatter_(1, ids, -torch.inf)
        of_others = others.logsumexp(1, keepdim=True)
        student = (torch.cat((of_tokens, of_others - log_sum), 1) / temperature).log_softmax(1)
        probabilities = teacher.exp()
        # An entry that the teacher does not have is one that the student does not have either: 0, not NaN.
        terms = (probabilities * (teacher - student)).masked_fill(probabilities == 0, 0.0)
        divergence = temperature**2 * terms.where(counts, 0.0).sum()
        # At the entries' log-probabilities; these sum to 0, so the softmax's own derivative cancels.
        at_entries = (1 - share) * temperature * (student.exp() - probabilities)
        # The tail's part is shared among its tokens by their probabilities.
        gradient = torch.softmax(others, 1, out=others).mul_(at_entries[:, -1:])
        gradient.masked_fill_(of_others.isneginf(), 0.0)  # where the entries are the whole vocabulary
        gradient.scatter_add_(1, ids, at_entries[:, :-1])
        if of_label is not None:
            gradient.add_(of_label, alpha=share)
            gradient.scatter_add_(1, index, gradient.new_full(index.shape, -share))
        return ChunkSums((1 - share) * divergence + share * cross_entropy, divergence, gradient, counts)

    per_token = labels.flatten(), ids.flatten(0, -2), logprobs.flatten(0, -2)
    return chunked(hidden.flatten(0, -2), weight, objective, *per_token)
