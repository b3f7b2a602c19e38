"""Loss and gradient of SFT and DPO are TRL's on the same rows, though ours are packed."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from unit.islands import Batch, some_island, some_recipe
from unit.packed import Document, Row, pack

from atoll import recipe
from atoll.island.step import Island
from atoll.model import hf
from atoll.objective.preference import by_document

trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and the trainer's own
LENGTH = 64


def words(generator: np.random.Generator, count: int) -> str:
    return " ".join(f"w{number}" for number in generator.integers(3, 64, count))


def some_rows() -> list[dict[str, str]]:
    generator = np.random.default_rng(0)
    return [
        {
            "prompt": words(generator, int(generator.integers(2, 6))) + " ",
            "chosen": words(generator, int(generator.integers(2, 10))),
            "rejected": words(generator, int(generator.integers(2, 10))),
        }
        for _ in range(6)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, and an end of text."""
    names = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(3, 64))]
    engine = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def island_of(objective: Any, seed: int = 0) -> Island:
    return some_island(msgspec.structs.replace(some_recipe(z_loss=0.0), objective=objective, seed=seed))


def theirs(island: Island, directory: Any) -> Any:
    """The island's model, as `transformers` has it."""
    directory.mkdir()
    hf.save_model(directory, island.model, context_length=LENGTH, bos_token_id=None, eos_token_id=1)
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")


def packed(rows: list[Row]) -> Batch:
    return pack([rows[:2], rows[2:3], rows[3:5], rows[5:]], LENGTH)


def loss_and_gradient(island: Island, rows: list[Row], **columns: Any) -> tuple[float, dict[str, Tensor]]:
    placed = island.place(packed(rows))
    if columns:
        placed = replace(placed, by_document={name: torch.tensor(value) for name, value in columns.items()})
    sums = island.objective.sums(island.model, placed)
    (sums.objective / placed.count).backward()
    return sums.loss.item() / placed.count, gradients(island.model)


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: parameter.grad.to_dense() for name, parameter in model.named_parameters()}


def compare(ours: tuple[float, dict[str, Tensor]], model: Any, loss: Tensor) -> None:
    """To 1e-5, of the loss, and of each tensor's gradient by its norm: elements near 0 are sums of fp32 that
    cancel, so that the relative difference of a single one says nothing.
    """
    loss.backward()
    assert ours[0] == pytest.approx(loss.item(), rel=1e-5)
    want = gradients(model)
    assert ours[1].keys() == want.keys()
    for name, value in want.items():
        difference = torch.linalg.vector_norm(ours[1][name] - value) / torch.linalg.vector_norm(value)
        assert difference <= 1e-5, f"{name}: {difference:.1e}"


def settings(kind: type, directory: Any, **changes: Any) -> Any:
    return kind(
        output_dir=str(directory),
        use_cpu=True,
        report_to=[],
        per_device_train_batch_size=6,
        bf16=False,
        gradient_checkpointing=False,
        max_length=LENGTH,
        **changes,
    )


def test_supervised_fine_tuning_is_trls(tokenizer, tmp_path) -> None:
    island = island_of(recipe.Sft())
    model = theirs(island, tmp_path / "model")
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in some_rows()]
    trainer = trl.SFTTrainer(
        model,
        settings(trl.SFTConfig, tmp_path),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    examples = list(trainer.train_dataset)
    inputs = trainer.data_collator(examples)
    loss = trainer.compute_loss(trainer.model, dict(inputs))
    own: list[Row] = [
        (Document(each["input_ids"], sum(label == -100 for label in each["labels"])),) for each in examples
    ]
    compare(loss_and_gradient(island, own), trainer.model, loss)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        (recipe.Dpo(beta=0.3), {"loss_type": ["sigmoid"], "beta": 0.3}),
        (recipe.Ipo(beta=0.2), {"loss_type": ["ipo"], "beta": 0.2}),
    ],
)
def test_preferences_are_trls_with_a_live_reference(objective, changes, tokenizer, tmp_path) -> None:
    island, reference = island_of(objective), island_of(objective, seed=1)
    model = theirs(island, tmp_path / "model")
    trainer = trl.DPOTrainer(
        model,
        theirs(reference, tmp_path / "reference"),
        settings(trl.DPOConfig, tmp_path, **changes),
        train_dataset=Dataset.from_list(some_rows()),
        processing_class=tokenizer,
    )
    examples = list(trainer.train_dataset)
    loss = trainer.compute_loss(trainer.model, dict(trainer.data_collator(examples)))
    own: list[Row] = [
        tuple(
            Document(each["prompt_ids"] + each[side], len(each["prompt_ids"]))
            for side in ("chosen_ids", "rejected_ids")
        )
        for each in examples
    ]
    with torch.no_grad():
        values, _ = by_document(reference.model, reference.place(packed(own)))
    compare(loss_and_gradient(island, own, reference=values), trainer.model, loss)
