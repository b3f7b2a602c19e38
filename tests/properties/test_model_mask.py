"""Attention within documents: equal to the formula with a dense mask, for any packing of a window."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.model.attention import Mask, attend

LENGTH = 12


@st.composite
def packings(draw: st.DrawFn) -> torch.Tensor:
    """Random document ids [B, LENGTH]: each a contiguous span, in any order, in every window anew."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        edges = sorted(draw(st.sets(st.integers(1, LENGTH - 1))))
        ids = draw(st.permutations(range(len(edges) + 1)))
        spans = zip([0, *edges], [*edges, LENGTH], ids, strict=True)
        rows.append([i for start, end, i in spans for _ in range(start, end)])
    return torch.tensor(rows, dtype=torch.int32)


def plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: torch.Tensor
) -> torch.Tensor:
    """Attention by its formula, with a dense mask."""
    groups = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(groups, dim=2) for x in (key, value))
    scores = torch.einsum("blhe,bmhe->bhlm", query, key) / query.shape[-1] ** 0.5
    seen = (documents[:, :, None] == documents[:, None, :]).tril()
    return torch.einsum("bhlm,bmhe->blhe", scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1), value)


@settings(max_examples=60, deadline=None)
@given(packings(), st.integers(0, 2**31), st.sampled_from([1, 2]))
def test_attention_and_its_gradient_are_the_dense_formulas(documents: torch.Tensor, seed: int, groups: int):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(*documents.shape, heads, 4) for heads in (2, 2 // groups, 2 // groups)]
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes
    ]
    ours = attend(*inputs, Mask.of_documents(documents))
    reference = plain(*inputs, documents)
    torch.testing.assert_close(ours, reference)
    upstream = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(ours, inputs, upstream)
    expected = torch.autograd.grad(reference, inputs, upstream)
    for gradient, formula in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, formula)


@settings(max_examples=60, deadline=None)
@given(packings(), st.data())
def test_no_token_sees_another_document_or_its_own_future(documents: torch.Tensor, data: st.DataObject):
    window = data.draw(st.integers(0, documents.shape[0] - 1))
    changed = data.draw(st.integers(0, LENGTH - 1))
    x = torch.randn(*documents.shape, 2, 4, generator=torch.Generator().manual_seed(0))
    mask = Mask.of_documents(documents)
    before = attend(x, x, x, mask)
    x[window, changed] += 1.0
    moved = (attend(x, x, x, mask) != before).flatten(2).any(-1)
    may_move = torch.zeros_like(moved)
    may_move[window] = (documents[window] == documents[window, changed]) & (torch.arange(LENGTH) >= changed)
    assert not (moved & ~may_move).any()
    assert moved[window, changed]


def test_whole_windows_are_one_attention_call():
    one_document_each = Mask.of_documents(torch.zeros(8, 256, dtype=torch.int32))
    assert one_document_each == Mask.causal(8, 256) == Mask(((8, 256),))
