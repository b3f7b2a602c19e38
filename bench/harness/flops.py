"""How many floating-point operations a training step needs, and how many a device could do meanwhile."""

import numpy as np

from atoll.model.presets import LlamaConfig
from harness.sides import Shape

# Dense bf16 products a second, from the maker's data sheets, by the exact name that the driver gives. For a
# device that is not here, only what was reached is known, not the share of what could be.
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


def step_flops(shape: Shape, documents: np.ndarray) -> float:
    """What the model needs for one training step, whoever computes it: 6 N a token, and attention.

    `documents` [B, L] are one micro-batch's; attention counts only pairs of tokens that see each other. What
    activation checkpointing computes a second time does not count.
    """
    starts = np.diff(documents, axis=1, prepend=documents[:, :1] - 1) != 0
    lengths = np.diff(np.append(np.flatnonzero(starts), documents.size))
    pairs = float(np.square(lengths, dtype=np.float64).sum()) / 2
    return shape.num_micro_batches * _flops(shape.config, documents.size, pairs)


def whole_window_flops(shape: Shape) -> float:
    """The same, but with attention over the whole window, its masked half included: torchtitan's count.

    Published utilisations are often of this count, so it is what they can be compared with.
    """
    tokens = shape.num_windows * shape.context_length
    return shape.num_micro_batches * _flops(shape.config, tokens, float(tokens) * shape.context_length)


def _flops(config: LlamaConfig, tokens: int, pairs: float) -> float:
    """Forward and backward; the backward pass takes twice what the forward pass takes."""
    # All parameters are multiplied with every token, but for an input embedding that is not the head as well.
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    # A multiplication and an addition for each parameter; attention has two products, each of `pairs`.
    return 3 * (2 * (config.num_parameters - looked_up) * tokens + 2 * 2 * width * pairs)
