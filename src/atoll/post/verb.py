"""`atoll capture`: from what the command line says to a witness."""

from pathlib import Path

import msgspec
import torch

from atoll.data.loader import Loader
from atoll.data.manifest import TOKENIZER_DIR
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.files import digest_file
from atoll.island.parallelize import device
from atoll.model import hf
from atoll.model.lora import digest_of
from atoll.objective import build
from atoll.post.capture import Part, Report, capture
from atoll.post.published import PublishedRows
from atoll.post.server import ServedModel
from atoll.post.witnesses import LocalModel, Reference, Says, Teacher
from atoll.publish.export import load_model
from atoll.recipe import Recipe
from atoll.recipe.objective import REFERENCE
from atoll.run.directory import RunDir


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What `atoll capture` is asked for; for distillation exactly one of the first three."""

    teacher: Path | None = None  # a checkpoint directory of `transformers`
    server: str = ""  # an OpenAI-compatible server's URL
    rows: Path | None = None  # rows that DistillKit has written
    served: str = ""  # with server: the model's name there
    codec: Path | None = None  # with rows: how they are compressed, as JSON
    tokenizer: Path | None = None  # of the teacher, where it is not in its directory
    num_entries: int = 32
    part: Part = Part()


def capture_for(recipe: Recipe, run_dir: RunDir, asked: Asked, report: Report) -> tuple[int, str]:
    """Capture what the recipe's objective needs; (how many ranges are missing, what was measured).

    Raises UserError for what cannot be used.
    """
    if not recipe.objective.columns:
        raise UserError(f"{recipe.name}: its objective needs nothing captured; next: atoll train")
    loader = Loader(run_dir.data, recipe)
    if REFERENCE in recipe.objective.columns:
        if asked.teacher or asked.server or asked.rows:
            raise UserError("the reference is the model that the run starts from; leave out who says it")
        return capture(loader, run_dir, _reference(recipe, run_dir, loader), asked.part, report), ""
    witness = _teacher(recipe, run_dir, loader, asked)
    missing = capture(loader, run_dir, witness, asked.part, report)
    return missing, witness.rounding.text() if witness.rounding.count else ""


def _reference(recipe: Recipe, run_dir: RunDir, loader: Loader) -> Reference:
    state_0, vocab_size = run_dir.state_0(), loader.manifest.vocab_size
    state_0.verify()
    model = _ready(load_model(recipe, vocab_size, state_0), recipe)
    return Reference(model, build(recipe, vocab_size), state_0.root.hex(), recipe.island.micro_batch)


def _teacher(recipe: Recipe, run_dir: RunDir, loader: Loader, asked: Asked) -> Teacher:
    given = [name for name in ("teacher", "server", "rows") if getattr(asked, name)]
    if len(given) != 1:
        raise UserError("say who teaches: exactly one of --teacher DIR, --server URL and --rows FILE")
    if asked.num_entries - 1 > loader.manifest.vocab_size:
        raise UserError(
            f"--entries {asked.num_entries}: the vocabulary has {loader.manifest.vocab_size} tokens"
        )
    tokenizer = asked.tokenizer or asked.teacher
    if tokenizer is None:
        raise UserError(f"--{given[0]}: say with --tokenizer where the teacher's tokenizer.json is")
    ours = Tokenizer.load(run_dir.data / TOKENIZER_DIR / "tokenizer.json")
    check_same_tokens(ours, Tokenizer.load(tokenizer), str(tokenizer))
    says, of = _says(recipe, loader, asked)
    return Teacher(says, of, asked.num_entries, loader.manifest.vocab_size)


def _says(recipe: Recipe, loader: Loader, asked: Asked) -> tuple[Says, str]:
    """Who says the distributions, and what names them."""
    if asked.teacher is not None:
        model = _ready(hf.open_model(asked.teacher), recipe)
        return LocalModel(model, loader.manifest.vocab_size, recipe.island.micro_batch), digest_of(
            asked.teacher
        )
    if asked.server:
        if not asked.served:
            raise UserError("--server: say with --served how the model is called there")
        return ServedModel(asked.server, asked.served), f"{asked.served} at {asked.server}"
    assert asked.rows is not None
    return PublishedRows(asked.rows, asked.codec), digest_file(asked.rows)


def check_same_tokens(ours: Tokenizer, teachers: Tokenizer, where: str) -> None:
    """Raises UserError, with the first id that differs, unless every id is the same token for both."""
    here, there = ours.tokens(), teachers.tokens()
    for number in range(max(len(here), len(there))):
        pair = [tokens[number] if number < len(tokens) else None for tokens in (here, there)]
        if pair[0] != pair[1]:
            raise UserError(
                f"{where}: the teacher has another vocabulary: id {number} is {pair[1]!r}, and {pair[0]!r} "
                "in the prepared data; prepare the rows with the teacher's tokenizer"
            )


def _ready(model: hf.Model, recipe: Recipe) -> hf.Model:
    """The model where it shall compute: in bf16 on an accelerator, in fp32 on the CPU."""
    where = device(recipe.island.device)
    if recipe.island.threads:
        torch.set_num_threads(recipe.island.threads)
    return model.to(where) if where.type == "cpu" else model.to(where, torch.bfloat16)
