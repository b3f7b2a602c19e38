"""Post-training beside others: tokens per second, bytes of a capture, bytes of adapters on the wire.

    python bench/post.py [--threads 2] [--steps 12] [--rows sft]

Both sides of a row are measured in this process, in turns, the best of two. TRL trains its own model on the
same rows by its own trainer, and its seconds are those that the trainer reports. Tokens are those of rows,
without padding. The codec is the one that DistillKit's README recommends, written after its formula. About
five minutes.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from harness.report import Report, arguments
from harness.sides import Batch

from atoll import recipe as recipes
from atoll.data.loader import NO_LABEL
from atoll.island.step import Island
from atoll.model import hf
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS
from atoll.objective import build
from atoll.objective.entries import Entries
from atoll.recipe.objective import REFERENCE
from atoll.swarm.layout import BLOCK

KEYS = ("row",)
V, LENGTH = 2048, 512
SHAPE = msgspec.structs.replace(PRESETS["demo"], num_hidden_layers=4, vocab_size=V)
WINDOWS = 8  # rows of a micro-batch that is not packed
ASKED = {"sft": 1.0, "sft packed": 2.0, "dpo": 1.0}
Row = list[tuple[list[int], int]]  # documents: their tokens, and how many are the prompt


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12, help="of each side, in each turn")
    parser.add_argument(
        "--rows", nargs="+", choices=[*ASKED, "capture", "lora"], default=[*ASKED, "capture", "lora"]
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["TQDM_DISABLE"] = "1"
    warnings.filterwarnings("ignore")
    report = Report("post", options, keys=KEYS, packages=("torch", "transformers", "trl"))
    for name in options.rows:
        if name == "capture":
            for values in captures():
                report.add(values)
        elif name == "lora":
            report.add(adapters())
        else:
            ours, peer = (max(turn(name, options.steps) for _ in range(2)) for turn in (our_rate, their_rate))
            report.add({"row": name, "ours": ours, "peer": peer, "ratio": ours / peer, "asked": ASKED[name]})


# --------------------------------------------------------------------------------------------- training steps
def rows_of(name: str, count: int) -> list[Row]:
    """Rows of 20 to 250 tokens, a third of them the prompt; pairs for DPO."""
    generator = np.random.default_rng(0)
    rows: list[Row] = []
    for _ in range(count):
        length = int(generator.integers(20, 250))
        tokens = generator.integers(3, V, (2, length))
        tokens[1, : length // 3] = tokens[0, : length // 3]
        documents = [(side.tolist(), length // 3) for side in tokens]
        rows.append(documents if name == "dpo" else documents[:1])
    return rows


def windows_of(name: str, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each window: one, or as many as fit."""
    if name != "sft packed":
        return [[row] for row in rows]
    windows: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row[0][0])):
        room = [LENGTH - sum(len(tokens) for each in window for tokens, _ in each) for window in windows]
        fits = [at for at, free in enumerate(room) if free >= len(row[0][0])]
        if fits:
            windows[min(fits, key=lambda at: room[at])].append(row)
        else:
            windows.append([row])
    return windows


def batch_of(windows: Sequence[Sequence[Row]]) -> Batch:
    """A micro-batch of these windows, as long as the longest of them."""
    length = max(sum(len(tokens) for row in window for tokens, _ in row) for window in windows)
    tokens = np.zeros((len(windows), length), np.int64)
    labels, documents = np.full_like(tokens, NO_LABEL), np.zeros(tokens.shape, np.int32)
    for number, window in enumerate(windows):
        at = count = 0
        for ids, num_prompt in (document for row in window for document in row):
            end = at + len(ids)
            tokens[number, at:end], documents[number, at:end] = ids, count
            labels[number, at + num_prompt - 1 : end - 1] = ids[num_prompt:]
            at, count = end, count + 1
        documents[number, at:] = count
    return Batch(tokens, labels, documents)


def our_rate(name: str, num_steps: int) -> float:
    """Our tokens per second."""
    objective = recipes.Dpo() if name == "dpo" else recipes.Sft()
    recipe = msgspec.structs.replace(recipes.load("demo"), objective=objective)
    model = Llama(SHAPE)
    model.init_weights(0)
    island = Island(model, build(recipe, V), recipe)
    rows = rows_of(name, WINDOWS * num_steps)
    if name == "dpo":
        steps = [rows[at : at + WINDOWS // 2] for at in range(0, len(rows) // 2, WINDOWS // 2)]
        windows = [windows_of(name, step) for step in steps]
    else:
        every = windows_of(name, rows)
        size = WINDOWS if name == "sft" else WINDOWS * 2 // 4  # as many tokens, about
        windows = [every[at : at + size] for at in range(0, len(every), size)]
    tokens = sum(len(ids) for step in windows for window in step for row in window for ids, _ in row)
    batches = [batch_of(step) for step in windows]
    if name == "dpo":
        for batch in batches:
            width = int(batch.documents.max()) + 1
            batch.by_document[REFERENCE] = np.full((len(batch.tokens), width), -100.0)
    island.inner_step([island.place(batches[0])], 0)
    island.read()
    started = time.monotonic()
    for step, batch in enumerate(batches):
        island.inner_step([island.place(batch)], step)
        island.read()
    return tokens / (time.monotonic() - started)


def their_rate(name: str, num_steps: int) -> float:
    """Tokens per second of TRL's trainer."""
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    engine = Tokenizer(models.WordLevel({f"{number}": number for number in range(V)}, unk_token="2"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, pad_token="0", eos_token="1", unk_token="2")
    rows = rows_of(name, WINDOWS * num_steps)
    with tempfile.TemporaryDirectory() as directory:
        model = Llama(SHAPE)
        model.init_weights(0)
        hf.save_model(Path(directory), model, context_length=LENGTH, bos_token_id=None, eos_token_id=1)
        theirs = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
        common: dict[str, Any] = {
            "output_dir": directory, "use_cpu": True, "report_to": [], "bf16": False, "max_length": LENGTH,
            "gradient_checkpointing": False, "num_train_epochs": 1, "save_strategy": "no",
            "disable_tqdm": True, "logging_strategy": "no", "optim": "adamw_torch_fused",
        }  # fmt: skip
        if name == "dpo":
            pairs = [
                {
                    side: text(ids[len(ids) // 3 :])
                    for side, (ids, _) in zip(("chosen", "rejected"), row, strict=True)
                }
                | {"prompt": text(row[0][0][: len(row[0][0]) // 3]) + " "}
                for row in rows[: len(rows) // 2]
            ]
            config = trl.DPOConfig(
                **common, per_device_train_batch_size=WINDOWS // 2, precompute_ref_log_probs=True
            )
            trainer = trl.DPOTrainer(
                theirs, args=config, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer
            )
            tokens = sum(len(ids) for row in rows[: len(rows) // 2] for ids, _ in row)
        else:
            examples = [
                {"input_ids": ids, "completion_mask": [0] * prompt + [1] * (len(ids) - prompt)}
                for ((ids, prompt),) in rows
            ]
            size = WINDOWS if name == "sft" else WINDOWS * 2 // 4
            config = trl.SFTConfig(
                **common,
                per_device_train_batch_size=size,
                packing=name == "sft packed",
                completion_only_loss=True,
            )
            trainer = trl.SFTTrainer(
                theirs, args=config, train_dataset=Dataset.from_list(examples), processing_class=tokenizer
            )
            tokens = sum(len(ids) for ((ids, _),) in rows)
        return tokens / trainer.train().metrics["train_runtime"]


def text(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


# ------------------------------------------------------------------------------------------------------ bytes
def captures() -> list[dict[str, object]]:
    """Bytes and error of a kept entry: ours, fp16 beside 32-bit ids, and DistillKit's recommended codec."""
    generator, vocab_size, count = np.random.default_rng(0), 128_256, 128
    logits = torch.from_numpy(3 * generator.standard_normal((64, vocab_size)).astype(np.float32))
    values, ids = logits.double().log_softmax(-1).topk(count)
    tail = torch.log1p(-values.exp().sum(-1, keepdim=True))
    exact = torch.cat((values, tail), -1)
    words = Entries(vocab_size).encoded(ids.numpy(), exact.numpy())
    _, ours = Entries(vocab_size).decoded(torch.from_numpy(words))
    forms: dict[str, tuple[float, torch.Tensor]] = {
        "ours": (4.0, (ours - exact)[:, :-1]),
        "fp16 and 32-bit ids": (6.0, values.half().double() - values),
        "DistillKit's recommended codec": codec_of_distillkit(values, vocab_size),
    }
    return [
        {
            "row": f"capture: {name}",
            "bytes_per_entry": num_bytes,
            "mean_error": float(errors.abs().mean()),
            "largest_error": float(errors.abs().max()),
            **({"asked": 4.0, "ratio": num_bytes / forms["ours"][0]} if name == "ours" else {}),
        }
        for name, (num_bytes, errors) in forms.items()
    ]


def codec_of_distillkit(values: torch.Tensor, vocab_size: int) -> tuple[float, torch.Tensor]:
    """(bytes of an entry, errors): 16 exact values in bf16, a polynomial in fp32 of the others.

    The polynomial is fitted in fp64, so that its error is the form's own and not that of a solver.
    """
    exact, others = values[:, :16].bfloat16().double(), values[:, 16:]
    at = torch.arange(others.shape[1], dtype=torch.float64)
    design = torch.stack([at**power for power in range(5)] + [at.sqrt()], -1)
    coefficients = torch.linalg.lstsq(design, others.T).solution.float().double()
    fitted = torch.cat((exact, (design @ coefficients).T), -1)
    id_bytes = values.shape[1] * (vocab_size - 1).bit_length() / 8
    return (16 * 2 + 6 * 4 + id_bytes) / values.shape[1], fitted - values


def adapters() -> dict[str, object]:
    """Bytes that an island sends in an outer step of the 8b preset, all of it and its adapters of rank 16."""
    with torch.device("meta"):
        model = Llama(PRESETS["8b"])
    whole = sum(padded(parameter.numel()) for parameter in model.parameters())
    lora = recipes.Lora()
    layers = [module for name, module in model.named_modules() if name.rpartition(".")[2] in lora.layers]
    low_rank = sum(
        padded(lora.rank * size)
        for each in layers
        for size in (each.in_features, each.out_features)  # type: ignore
    )
    return {
        "row": "lora: an outer step of 8b in int8",
        "ours": low_rank * (1 + 4 / BLOCK),
        "peer": whole * (1 + 4 / BLOCK),
        "ratio": whole / low_rank,
    }


def padded(num_elements: int) -> int:
    return -(-num_elements // BLOCK) * BLOCK


if __name__ == "__main__":
    main()
