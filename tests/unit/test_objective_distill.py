"""Distillation: the formula, its gradient, and the words that a teacher's distribution is kept in."""

import numpy as np
import pytest
import torch
from torch import Tensor

from atoll.model import head
from atoll.objective.distill import divergence_and_cross_entropy
from atoll.objective.entries import Entries

V, K = 11, 5  # vocabulary, entries


def some(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden [2, 9, 6], weight [11, 6], labels [2, 9], a third ignored, teacher's logits [2, 9, 11]."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, 9, 6, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(V, 6, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, V, (2, 9), generator=generator)
    teacher = 2 * torch.randn(2, 9, V, generator=generator, dtype=torch.float64)
    return hidden, weight, labels.where(torch.arange(18).view(2, 9) % 3 > 0, -100), teacher


def kept(logits: Tensor, num_entries: int = K) -> tuple[Tensor, Tensor]:
    """(ids, log-probabilities with the tail's) of the teacher's likeliest tokens."""
    logprobs = logits.detach().log_softmax(-1)
    values, ids = logprobs.topk(num_entries - 1)
    others = logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    return ids, torch.cat((values, others), -1)


def plain(
    hidden: Tensor, weight: Tensor, labels: Tensor, ids: Tensor, teacher: Tensor, t: float, share: float
) -> Tensor:
    """The same loss by autograd over whole logits."""
    logprobs = (hidden @ weight.T).log_softmax(-1)
    others = logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    student = (torch.cat((logprobs.gather(-1, ids), others), -1) / t).log_softmax(-1)
    target = (teacher / t).log_softmax(-1)
    divergence = t**2 * (target.exp() * (target - student)).sum(-1)
    cross_entropy = -logprobs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return ((1 - share) * divergence + share * cross_entropy).where(labels != -100, 0.0).sum()


@pytest.mark.parametrize("chunk_elements", [1, 33, 1 << 19])
@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.3), (1.0, 1.0)])
def test_loss_and_gradient_are_the_formula_in_fp64(
    monkeypatch, chunk_elements: int, temperature: float, share: float
) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_elements)
    monkeypatch.setattr(head, "CHUNK_ROWS", 1)
    hidden, weight, labels, teacher = some()
    entries = kept(teacher)
    ours, divergence = divergence_and_cross_entropy(hidden, weight, labels, *entries, temperature, share)
    want = plain(hidden, weight, labels, *entries, temperature, share)
    torch.testing.assert_close(ours, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        divergence, plain(hidden, weight, labels, *entries, temperature, 0.0), rtol=1e-12, atol=1e-12
    )
    got = torch.autograd.grad(ours / 7, (hidden, weight))
    for a, b in zip(got, torch.autograd.grad(want / 7, (hidden, weight)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_teacher_equal_to_the_model_leaves_no_loss_and_no_gradient(temperature: float) -> None:
    hidden, weight, labels, _ = some()
    entries = kept(hidden @ weight.T)
    ours, _ = divergence_and_cross_entropy(hidden, weight, labels, *entries, temperature, 0.0)
    assert ours.detach().abs() < 1e-12
    assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(ours, (hidden, weight)))


def test_with_a_whole_vocabulary_of_entries_it_is_the_divergence_of_the_softmaxes() -> None:
    hidden, weight, labels, teacher = some()
    ours, _ = divergence_and_cross_entropy(hidden, weight, labels, *kept(teacher, V + 1), 2.0, 0.0)
    target, student = ((x / 2).log_softmax(-1) for x in (teacher, hidden @ weight.T))
    want = 4 * (target.exp() * (target - student)).sum(-1).where(labels != -100, 0.0).sum()
    torch.testing.assert_close(ours, want, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(want, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_gradients_size_is_about_constant_in_the_temperature() -> None:
    hidden, weight, labels, teacher = some()
    sizes = []
    for temperature in (4.0, 8.0, 16.0):
        ours, _ = divergence_and_cross_entropy(hidden, weight, labels, *kept(teacher), temperature, 0.0)
        sizes.append(torch.autograd.grad(ours, hidden)[0].norm().item())
    assert max(sizes) < 1.5 * min(sizes)


def test_an_entry_that_is_not_there_changes_nothing() -> None:
    hidden, weight, labels, teacher = some()
    ids, logprobs = kept(teacher)
    wider = torch.cat((ids, ids[..., :1]), -1)
    absent = torch.full_like(logprobs[..., :1], -torch.inf)
    padded = torch.cat((logprobs[..., :-1], absent, logprobs[..., -1:]), -1)
    losses = [
        divergence_and_cross_entropy(hidden, weight, labels, *entries, 2.0, 0.0)[0]
        for entries in ((ids, logprobs), (wider, padded))
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-14, atol=0)
    for a, b in zip(*(torch.autograd.grad(loss, (hidden, weight)) for loss in losses), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------------------------ words
@pytest.mark.parametrize(("vocab_size", "error"), [(300, 2e-5), (128_256, 2e-3), (262_144, 4e-3)])
def test_a_word_of_four_bytes_gives_back_its_id_and_nearly_its_log_probability(vocab_size, error) -> None:
    generator = np.random.default_rng(0)
    ids = np.stack([generator.permutation(vocab_size)[:31] for _ in range(50)])
    ids[0, :2] = vocab_size - 1, 0
    logprobs = np.log(generator.dirichlet(np.full(32, 0.1), 50).clip(1e-15))
    words = Entries(vocab_size).encoded(ids, logprobs)
    assert words.dtype == np.uint32
    found_ids, found = Entries(vocab_size).decoded(torch.from_numpy(words))
    assert (found_ids.numpy() == ids).all()
    assert np.abs(found.numpy() - logprobs).max() < error
    assert np.allclose(np.exp(found.numpy()).sum(-1), 1)


def test_words_of_entries_that_are_not_there_say_so() -> None:
    ids, logprobs = np.array([[7, 3, 9]]), np.log([[0.5, 0.25, 0.1, 0.25]])
    logprobs[0, 2] = -np.inf
    found_ids, found = Entries(10).decoded(torch.from_numpy(Entries(10).encoded(ids, logprobs)))
    assert found_ids.tolist() == [[7, 3, 7]]
    assert found[0, 2] == -np.inf


@pytest.mark.parametrize("wrong", [np.nan, 0.1])
def test_what_is_no_log_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="NaN or above 0"):
        Entries(10).encoded(np.array([[1]]), np.array([[wrong, -1.0]]))
