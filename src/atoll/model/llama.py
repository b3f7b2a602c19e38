"""Llama with the parameter names of transformers; it knows nothing of parallelism.

Its logits are bit-equal to those of transformers' LlamaForCausalLM on a CPU in fp32. `model/head.py` computes
losses from its hidden states. Shapes: B windows, L tokens of a window, D = hidden_size, H heads of size
E = head_dim.
"""

import math
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from atoll.model.attention import Mask, attend
from atoll.model.presets import LlamaConfig

Rotary = tuple[Tensor, Tensor]  # cosine and sine, each [L, 1, E]


class Attention(nn.Module):
    """Grouped-query attention with rotate-half rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: Rotary, mask: Mask) -> Tensor:
        """[B, L, D] for `x` [B, L, D]."""
        heads = (*x.shape[:2], -1, self.head_dim)
        query = rotate(self.q_proj(x).view(heads), rotary)
        key = rotate(self.k_proj(x).view(heads), rotary)
        value = self.v_proj(x).view(heads)
        return self.o_proj(attend(query, key, value, mask).flatten(2))


class MLP(nn.Module):
    """The SwiGLU feed-forward layer: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(_Gated.apply(self.gate_proj(x), self.up_proj(x)))


class _Gated(torch.autograd.Function):
    """silu(gate) * up; keeps only `gate` and `up` for the backward pass, and reuses memory in both passes."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(upstream[0] * up, gate)
        return of_gate, nn.functional.silu(gate).mul_(upstream[0])


class Block(nn.Module):
    """One layer: attention, then the MLP, each with a norm before it and added to its input."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: Rotary, mask: Mask) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Everything but the output embeddings, which transformers calls `model`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        # If tied, the head's dense gradient of this weight exists first, and sparse row gradients are added
        # to it without a second dense [vocab_size, D].
        self.embed_tokens = nn.Embedding(
            config.vocab_size, config.hidden_size, sparse=config.tie_word_embeddings
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """A Llama of dimensions `config`; its weights are arbitrary until `init_weights` or `load_state_dict`."""

    runs_blocks_once = True  # in every forward pass

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output embeddings [vocab_size, D]; where they are tied, the input embeddings themselves."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, in order."""
        return self.model.layers

    def forward(self, tokens: Tensor, mask: Mask) -> Tensor:
        """Hidden states [B, L, D] after the last norm, for `tokens` int64 [B, L]."""
        # Positions count from the start of the window, not of the document: rotary attention depends only on
        # their differences.
        rotary = rotary_tables(self.config, tokens.shape[1], tokens.device)
        x = self.model.embed_tokens(tokens)
        for block in self.model.layers:
            x = block(x, rotary, mask)
        return self.model.norm(x)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill the weights: a pure function of config and seed, equal on every device and number of threads.

        "Small init" (Nguyen and Salazar 2019). At the demo's size a standard deviation of 0.02 instead cost
        0.5 nats after 400 k tokens and, at a high learning rate, kept the loss at the unigram loss for as
        long. Each matrix has a generator of its own, keyed by seed and parameter name. It is numpy's, whose
        normal draws are scalar code: torch's differ in their bits with the width of the CPU's vectors.
        """
        small = math.sqrt(2 / (5 * self.config.hidden_size))
        residual_scale = 1 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = small
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std *= residual_scale  # so that the residual stream does not grow with depth
            key = int.from_bytes(blake3(f"{seed}:{name}".encode()).digest(length=16), "little")
            generator = np.random.Generator(np.random.Philox(key=key))
            draws = generator.standard_normal(parameter.shape, np.float32)
            parameter.copy_(torch.from_numpy(draws * np.float32(std)))


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """`x` [B, L, H, E] rotated by position; elements i and i + E/2 form a plane (rotate-half)."""
    cosine, sine = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def rotary_tables(config: LlamaConfig, length: int, device: torch.device) -> Rotary:
    """Cosine and sine, each [length, 1, E] fp32, with Llama 3's frequency scaling where the config has it."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if scaling := config.rope_scaling:
        # Waves longer than the original context are stretched by `factor`, short ones are kept, and those in
        # between are blended.
        turns = scaling.original_max_position_embeddings / (2 * math.pi / frequencies)
        blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        blend = blend.clamp(0, 1)
        frequencies = (1 - blend) * frequencies / scaling.factor + blend * frequencies
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None, None] * frequencies.repeat(2)
    return angles.cos(), angles.sin()
