"""Sampling from a model, one sequence at a time: for looking at a model, not for serving it."""

import torch
from torch import Tensor

from atoll.model.attention import Mask
from atoll.model.hf import Model


@torch.no_grad()
def generate(
    model: Model,
    prompt: list[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_tokens: frozenset[int] = frozenset(),
) -> list[int]:
    """At most `max_tokens` token ids that continue the non-empty `prompt`; equal for equal seeds.

    Temperature 0 takes the likeliest token. `top_p` samples from the likeliest tokens whose probabilities sum
    to it. A stop token ends the sequence and is not part of the result.
    """
    device = model.head_weight.device
    generator = torch.Generator().manual_seed(seed)  # on the CPU: equal draws on every device
    tokens = list(prompt)
    for _ in range(max_tokens):
        # No key-value cache: the work is quadratic, and the model needs no code for it.
        context = torch.tensor([tokens[-model.config.max_position_embeddings :]], device=device)
        hidden = model(context, Mask.causal(*context.shape))[0, -1]
        token = _sample((model.head_weight @ hidden).float().cpu(), temperature, top_p, generator)
        if token in stop_tokens:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def _sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = (logits / temperature).softmax(0).sort(descending=True)
    # The total probability of all likelier tokens. It is 0 for the likeliest, which therefore always stays.
    likelier = probabilities.cumsum(0) - probabilities
    probabilities = probabilities.where(likelier < top_p, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
