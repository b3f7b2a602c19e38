"""Sampling from a model: several prompts at once, each with draws of its own."""

from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from atoll.errors import UserError
from atoll.model.cache import reader, takes_unequal
from atoll.model.hf import Model


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen."""

    max_tokens: int = 100  # of a continuation
    temperature: float = 1.0  # 0: always the likeliest token
    top_p: float = 1.0  # of the likeliest tokens, whose probabilities sum to it
    seed: int = 0  # equal seeds give equal continuations of a prompt


Hear = Callable[[int, int], None]  # told the number of a prompt, and the next token of its continuation


@torch.no_grad()
def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_tokens: frozenset[int] = frozenset(),
    hear: Hear = lambda row, token: None,
) -> list[list[int]]:
    """The token ids that continue each of the non-empty `prompts`.

    A continuation ends before a stop token, after `sampling.max_tokens`, or where the model can read no
    further. Each prompt has its own draws, by the seed alone, so it is continued alike in any company, as far
    as the arithmetic of a larger batch is the same. Raises UserError for a prompt that is too long.
    """
    room = max_positions(model)
    for prompt in prompts:
        if len(prompt) >= room:
            raise UserError(
                f"the prompt has {len(prompt):,} tokens, and this model reads at most {room:,}; shorten it"
            )
    model.eval()
    done: list[list[int]] = [[] for _ in prompts]
    for rows in _batches(prompts, takes_unequal(model)):
        _continue(model, {row: prompts[row] for row in rows}, room, sampling, stop_tokens, done, hear)
    return done


def max_positions(model: Model) -> int:
    """How many tokens the model can read; a limit beyond all uses where its config gives none."""
    return getattr(model.config, "max_position_embeddings", None) or 1 << 30


def _batches(prompts: Sequence[Sequence[int]], may_be_unequal: bool) -> list[list[int]]:
    """The prompts, by their numbers, that are read together."""
    if may_be_unequal:
        return [list(range(len(prompts)))] if prompts else []
    groups: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(row)
    return list(groups.values())


def _continue(
    model: Model,
    prompts: dict[int, Sequence[int]],
    room: int,
    sampling: Sampling,
    stop_tokens: frozenset[int],
    done: list[list[int]],
    hear: Hear,
) -> None:
    """Append to the lists of `done` that belong to these prompts."""
    device, rows = model.head_weight.device, list(prompts)
    longest = max(len(prompt) for prompt in prompts.values())
    reading = reader(model, min(room, longest + sampling.max_tokens))
    # On the CPU: equal draws on every device.
    generators = [torch.Generator().manual_seed(sampling.seed) for _ in rows]
    limits = {row: min(sampling.max_tokens, room - len(prompt)) for row, prompt in prompts.items()}
    open_rows = {row for row in rows if limits[row] > 0}
    hidden = reading.read(list(prompts.values()))
    while open_rows:
        tokens = _sampled((hidden @ model.head_weight.T).float().cpu(), sampling, generators)
        for row, token in zip(rows, tokens, strict=True):
            if row not in open_rows:
                continue
            if token in stop_tokens:
                open_rows.remove(row)
                continue
            done[row].append(token)
            hear(row, token)
            if len(done[row]) == limits[row]:
                open_rows.remove(row)
        if open_rows:  # a row that is done reads on beside the others, and nobody looks
            hidden = reading.read_on(torch.tensor(tokens, device=device))


def _sampled(logits: Tensor, sampling: Sampling, generators: list[torch.Generator]) -> list[int]:
    """A token for each row of logits [B, vocab_size]."""
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    probabilities, order = (logits / sampling.temperature).softmax(-1), None
    if sampling.top_p < 1:
        probabilities, order = probabilities.sort(-1, descending=True)
        # The total probability of all likelier tokens. It is 0 for the likeliest, which therefore stays.
        likelier = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.where(likelier < sampling.top_p, 0.0)
    drawn = [
        int(torch.multinomial(row, 1, generator=generator))
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return drawn if order is None else [int(order[row, token]) for row, token in enumerate(drawn)]
