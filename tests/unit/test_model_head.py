import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as plain_cross_entropy

from atoll.model import head
from atoll.model.head import cross_entropy, log_probabilities


def plain(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    logits = hidden.flatten(0, -2) @ weight.T
    loss = plain_cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=-100)
    largest = logits.amax(-1)[labels.flatten() != -100]
    return loss + z_loss * largest.square().sum(), loss


def some(dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """hidden [2, 9, 6], weight [11, 6], labels [2, 9], a third of them ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden = (scale * torch.randn(2, 9, 6, generator=generator, dtype=dtype)).requires_grad_()
    weight = torch.randn(11, 6, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(0, 11, (2, 9), generator=generator)
    return hidden, weight, labels.where(torch.arange(18).view(2, 9) % 3 > 0, -100)


@pytest.mark.parametrize("chunk_elements", [1, 33, 1 << 19])  # one row, three rows, all at once
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_sums_and_gradients_are_the_plain_formulas(monkeypatch, chunk_elements: int, z_loss: float):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_elements)
    monkeypatch.setattr(head, "CHUNK_ROWS", 1)
    hidden, weight, labels = some(torch.float64)
    ours = cross_entropy(hidden, weight, labels, z_loss)
    minimised, loss = plain(hidden, weight, labels, z_loss)
    torch.testing.assert_close(ours.objective, minimised, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.loss, loss, rtol=1e-12, atol=1e-12)
    assert ours.num_tokens == 12
    got = torch.autograd.grad(ours.objective / 7, (hidden, weight))
    want = torch.autograd.grad(minimised / 7, (hidden, weight))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_large_logits_stay_finite():
    hidden, weight, labels = some(torch.float32, scale=1e3)
    ours = cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(ours.loss, plain(hidden, weight, labels, 0.0)[1])
    assert torch.isfinite(torch.autograd.grad(ours.objective, hidden)[0]).all()


def test_bfloat16_sums_in_fp32():
    hidden, weight, labels = some(torch.float32)
    narrow = [x.detach().bfloat16().requires_grad_() for x in (hidden, weight)]
    ours = cross_entropy(*narrow, labels)
    assert ours.loss.dtype == torch.float32
    torch.testing.assert_close(ours.loss, plain(hidden, weight, labels, 0.0)[1], rtol=1e-2, atol=0)
    want = torch.autograd.grad(cross_entropy(hidden, weight, labels).objective, (hidden, weight))
    for a, b in zip(torch.autograd.grad(ours.objective, narrow), want, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.05)


def test_a_batch_without_labels_is_zero_with_zero_gradient():
    hidden, weight, labels = some(torch.float32)
    ours = cross_entropy(hidden, weight, torch.full_like(labels, -100), z_loss=0.1)
    assert ours.objective == 0
    assert ours.num_tokens == 0
    assert not torch.autograd.grad(ours.objective, weight)[0].any()


def test_without_gradients_none_is_computed():
    hidden, weight, labels = some(torch.float32)
    with torch.no_grad():
        ours = cross_entropy(hidden, weight, labels)
    assert not ours.objective.requires_grad
    assert not cross_entropy(hidden, weight, labels).loss.requires_grad


def test_logits_are_never_held_as_a_whole(monkeypatch):
    seen: list[torch.Size] = []
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(head, "CHUNK_ROWS", 4)

    def objective(logits: Tensor) -> head.ChunkSums:
        seen.append(logits.shape)
        return head.ChunkSums(
            logits.sum(), logits.sum(), torch.ones_like(logits), torch.ones_like(logits[:, :1])
        )

    hidden, weight, _ = some(torch.float64)
    minimised, _ = head.chunked(hidden.flatten(0, 1), weight, objective)
    assert seen == [(4, 11)] * 4 + [(2, 11)]
    torch.testing.assert_close(minimised, (hidden.flatten(0, 1) @ weight.T).sum())


@pytest.mark.parametrize("chunk_elements", [1, 33, 1 << 19])
def test_log_probabilities_and_their_gradients_are_the_plain_formula(monkeypatch, chunk_elements: int):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_elements)
    monkeypatch.setattr(head, "CHUNK_ROWS", 1)
    hidden, weight, labels = some(torch.float64)
    ours = log_probabilities(hidden, weight, labels)
    index = labels.where(labels != -100, 0).unsqueeze(-1)
    plain = (hidden @ weight.T).log_softmax(-1).gather(-1, index).squeeze(-1).where(labels != -100, 0.0)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    # A loss that joins them as DPO does.
    preference = [torch.nn.functional.logsigmoid(of.sum(1).diff()).sum() for of in (ours, plain)]
    got, want = (torch.autograd.grad(loss, (hidden, weight)) for loss in preference)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_a_second_backward_pass_fails():
    hidden, weight, labels = some(torch.float32)
    ours = cross_entropy(hidden, weight, labels)
    ours.objective.backward(retain_graph=True)
    with pytest.raises(KeyError):
        ours.objective.backward()
