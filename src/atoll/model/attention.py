"""Causal attention in which no token sees another document.

Shapes: B windows, L tokens of a window, H heads of size E.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Mask:
    """Which tokens a token attends to: itself and those before it in its segment.

    A segment is a whole window, or a document's part of a window. `runs` lists (number of segments, length)
    for consecutive segments of equal length, in the order of the flattened tokens. A run is one attention
    call, so a batch of whole windows costs no more than without documents.
    """

    runs: tuple[tuple[int, int], ...]

    @classmethod
    def causal(cls, num_windows: int, length: int) -> Mask:
        """The mask in which each of the windows is one segment."""
        return cls(((num_windows, length),))

    @classmethod
    def of_documents(cls, documents: Tensor) -> Mask:
        """The mask in which each document is a segment. `documents` [B, L]: one integer per document."""
        starts = torch.ones_like(documents, dtype=torch.bool)
        starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
        edges = starts.flatten().nonzero().flatten().tolist()
        lengths = [end - start for start, end in zip(edges, [*edges[1:], documents.numel()], strict=True)]
        return cls(tuple((len(list(run)), length) for length, run in groupby(lengths)))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """The attention output [B, L, H, E] for query [B, L, H, E] and key and value [B, L, H or fewer, E]."""
    sizes = [count * length for count, length in mask.runs]
    # split rather than slices: its backward pass is one cat, and each slice's would zero a whole tensor.
    queries, keys, values = (x.flatten(0, 1).split(sizes) for x in (query, key, value))
    outputs = [
        _segments(q, k, v, length)
        for q, k, v, (_, length) in zip(queries, keys, values, mask.runs, strict=True)
    ]
    return torch.cat(outputs).view_as(query) if len(outputs) > 1 else outputs[0].view_as(query)


def _segments(query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
    """Causal attention within each segment of `length` tokens; all tensors are [tokens, heads, E]."""
    grouped = query.shape[1] != key.shape[1]
    q, k, v = (x.view(-1, length, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
    output = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    return output.transpose(1, 2).flatten(0, 1)
