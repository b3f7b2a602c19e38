"""Models that read on: what they have read stays in a key-value cache, so that a new token costs one token.

Shapes: B rows, L tokens, D = hidden_size, H heads of size E.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from atoll.model.foreign import Foreign
from atoll.model.hf import Model
from atoll.model.llama import Llama, Rotary, rotary_tables, rotate


class Reader(Protocol):
    """A model and what its rows have read."""

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read a prompt in each row, once, at the beginning; hidden states [B, D] of the last tokens."""
        ...

    def read_on(self, tokens: Tensor) -> Tensor:
        """Read one more token in each row, `tokens` [B]; its hidden states [B, D]."""
        ...


def reader(model: Model, room: int) -> Reader:
    """A reader of at most `room` tokens a row."""
    return LlamaReader(model, room) if isinstance(model, Llama) else ForeignReader(model)


def takes_unequal(model: Model) -> bool:
    """Whether the prompts of a reader's rows may differ in length."""
    return isinstance(model, Llama)


class LlamaReader:
    """A reader of a Llama. Row i has read lengths[i] tokens; what its cache holds beyond is not looked at."""

    def __init__(self, model: Llama, room: int) -> None:
        self._model, self._room = model, room
        self._rotary = rotary_tables(model.config, room, model.head_weight.device)
        self._keys: list[Tensor] = []  # of each block: [B, H, room, E]
        self._values: list[Tensor] = []
        self._lengths: list[int] = []

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Prompts may differ in length: the shorter ones are filled up behind, where nothing looks."""
        config, weight = self._model.config, self._model.head_weight
        self._lengths = [len(prompt) for prompt in prompts]
        longest = max(self._lengths)
        shape = (len(prompts), config.num_key_value_heads, self._room, config.head_dim)
        for _ in self._model.model.layers:
            self._keys.append(weight.new_zeros(shape))
            self._values.append(weight.new_zeros(shape))
        filled = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        x = self._model.model.embed_tokens(torch.tensor(filled, device=weight.device))
        rotary = self._rotary[0][:longest], self._rotary[1][:longest]
        for number, block in enumerate(self._model.model.layers):
            query, key, value = _projected(block, x, rotary)
            self._keys[number][:, :, :longest] = key
            self._values[number][:, :, :longest] = value
            x = _finished(block, x, _attend(query, key, value, is_causal=True))
        ends = torch.tensor(self._lengths, device=weight.device) - 1
        return self._model.model.norm(x[torch.arange(len(prompts), device=weight.device), ends])

    def read_on(self, tokens: Tensor) -> Tensor:
        device = tokens.device
        places, rows = torch.tensor(self._lengths, device=device), torch.arange(len(tokens), device=device)
        end = max(self._lengths) + 1
        mask = None
        if min(self._lengths) + 1 < end:
            mask = (torch.arange(end, device=device) <= places[:, None])[:, None, None]
        rotary = self._rotary[0][places][:, None], self._rotary[1][places][:, None]  # [B, 1, 1, E]
        x = self._model.model.embed_tokens(tokens)[:, None]
        for block, keys, values in zip(self._model.model.layers, self._keys, self._values, strict=True):
            query, key, value = _projected(block, x, rotary)
            if mask is None:
                keys[:, :, end - 1], values[:, :, end - 1] = key[:, :, 0], value[:, :, 0]
            else:
                keys[rows, :, places], values[rows, :, places] = key[:, :, 0], value[:, :, 0]
            x = _finished(block, x, _attend(query, keys[:, :, :end], values[:, :, :end], mask))
        # A row that is done reads on beside the others, at last in its last place again and again.
        self._lengths = [min(length + 1, self._room - 1) for length in self._lengths]
        return self._model.model.norm(x[:, 0])


def _projected(block: Any, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value [B, H, L, E] of a block, rotated."""
    attention, x = block.self_attn, block.input_layernorm(x)
    heads = (*x.shape[:2], -1, attention.head_dim)
    query = rotate(attention.q_proj(x).view(heads), rotary)
    key = rotate(attention.k_proj(x).view(heads), rotary)
    value = attention.v_proj(x).view(heads)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """The attention output [B, L, H E]."""
    grouped = query.shape[1] != key.shape[1]
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped
    )
    return output.transpose(1, 2).flatten(2)


def _finished(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """What a block gives for its input, once it has attended."""
    x = x + block.self_attn.o_proj(attended)
    return x + block.mlp(block.post_attention_layernorm(x))


class ForeignReader:
    """A reader of any model of `transformers`, with that library's cache; its prompts are equally long."""

    def __init__(self, model: Foreign) -> None:
        self._model, self._cache = model, None

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        return self._read(torch.tensor(prompts, device=self._model.head_weight.device))

    def read_on(self, tokens: Tensor) -> Tensor:
        return self._read(tokens[:, None])

    def _read(self, tokens: Tensor) -> Tensor:
        hidden, self._cache = self._model.read(tokens, self._cache)
        return hidden[:, -1]
