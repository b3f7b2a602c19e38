"""Tokens per second of `atoll generate`, beside `generate` of transformers, same checkpoint, on a CPU.

    python bench/generate.py [--threads 2] [--rounds 5]

Batches of 1 and of 8 prompts of 32 tokens, each continued by 128 tokens, the likeliest ones, by a Llama of 10
million parameters in fp32. The sides take turns in one process; medians. Both must give the same tokens. Less
than a minute.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from harness.report import Report, arguments

from atoll.model import hf
from atoll.model.generate import Sampling, generate
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS

BATCHES = (1, 8)
PROMPT_TOKENS, NEW_TOKENS = 32, 128
CONFIG = msgspec.structs.replace(
    PRESETS["demo"],
    vocab_size=16_384,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=64,
    tie_word_embeddings=True,
)
Tokens = list[list[int]]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="as many as the figures' machine has cores")
    parser.add_argument("--rounds", type=int, default=5, help="so many turns of each side")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = Report("generate", options, keys=("batch", "threads"), packages=("torch", "transformers"))
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        sides = ours(Path(folder)), theirs(Path(folder))
        for batch in BATCHES:
            report.add(row(batch, sides, options.rounds, options.threads))


def write_checkpoint(directory: Path) -> None:
    """Arbitrary weights, larger than a fresh model's: its continuations are no constant."""
    model = Llama(CONFIG)
    model.init_weights(seed=0)
    for parameter in model.parameters():
        parameter.data *= 2
    hf.save(directory, CONFIG, model.state_dict())


def ours(directory: Path) -> Callable[[Tokens], Tokens]:
    model = hf.open_model(directory)
    sampling = Sampling(max_tokens=NEW_TOKENS, temperature=0)
    return lambda prompts: generate(model, prompts, sampling)


def theirs(directory: Path) -> Callable[[Tokens], Tokens]:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(directory).eval()

    def continued(prompts: Tokens) -> Tokens:
        ids = torch.tensor(prompts)
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        return found[:, ids.shape[1] :].tolist()

    return continued


def row(
    batch: int, sides: tuple[Callable[[Tokens], Tokens], ...], rounds: int, threads: int
) -> dict[str, object]:
    """Both sides' tokens per second. Raises RuntimeError where their tokens differ."""
    random = torch.Generator().manual_seed(batch)
    prompts: Tokens = torch.randint(CONFIG.vocab_size, (batch, PROMPT_TOKENS), generator=random).tolist()
    found = [side(prompts) for side in sides]  # each side's first time is not counted
    if found[0] != found[1]:
        raise RuntimeError(f"the two sides continue a batch of {batch} differently")
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            began = time.perf_counter()
            side(prompts)
            taken.append(time.perf_counter() - began)
    rates = [batch * NEW_TOKENS / statistics.median(taken) for taken in seconds]
    return {
        "batch": batch,
        "threads": threads,
        "parameters": CONFIG.num_parameters,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "ours": round(rates[0], 1),
        "peer": round(rates[1], 1),
        "unit": "tokens/s",
        "ratio": round(rates[0] / rates[1], 3),
    }


if __name__ == "__main__":
    main()
