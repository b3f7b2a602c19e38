"""Checkpoints that are to be merged: what must agree between them, and the files beside their weights."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from atoll.errors import UserError
from atoll.given import named, read_text, refuse_pointer
from atoll.words import listed

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".safetensors.index.json")
# They would speak of the model that they were copied from.
OF_ONE_MODEL = ("README.md", "training_args.bin", "facts.json", "map.png", "loss.png", "rounding.bin")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
FLOATS = ("float32", "bfloat16", "float16", "float64")


class Checkpoint(NamedTuple):
    """A checkpoint directory of `transformers`, by what can be read without its weights."""

    path: Path  # absolute
    config: dict[str, Any]  # config.json
    shapes: dict[str, tuple[int, ...]]  # of the tensors, by name
    vocabulary: dict[str, int]  # ids by token; empty where there is no tokenizer.json

    @staticmethod
    def open(path: Path) -> "Checkpoint":
        """Raises UserError for a directory that is no checkpoint, or whose files are damaged."""
        if not (path / "config.json").is_file():
            raise UserError(
                f"{named(path)}: no checkpoint is here (no config.json); give a directory with one"
            )
        config = _json(path / "config.json")
        if _dtype(config) not in FLOATS:
            where = f"{named(path / 'config.json')}: dtype {_dtype(config)!r}"
            raise UserError(f"{where} is none of {listed(FLOATS)}; correct it there")
        weights = sorted(path.glob("*.safetensors"))
        if not weights:
            raise UserError(f"{named(path)}: holds no .safetensors file; only these can be merged")
        shapes = {name: shape for file in weights for name, shape in _shapes(file).items()}
        tokenizer = path / "tokenizer.json"
        vocabulary = _vocabulary(_json(tokenizer), tokenizer) if tokenizer.is_file() else {}
        return Checkpoint(path.resolve(), config, shapes, vocabulary)

    @property
    def dtype(self) -> str:
        """The dtype that the configuration names, as torch calls it."""
        return _dtype(self.config)

    def copy_files(self, out: Path, dtype: str) -> None:
        """Copy everything but weights and what is about this model alone; config.json with another dtype."""
        for file in sorted(self.path.iterdir()):
            if file.is_file() and not file.name.endswith(WEIGHT_SUFFIXES) and file.name not in OF_ONE_MODEL:
                shutil.copyfile(file, out / file.name)
        config = self.config | dict.fromkeys(("dtype", "torch_dtype"), dtype)
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _dtype(config: dict[str, Any]) -> str:
    return config.get("dtype") or config.get("torch_dtype") or "float32"


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises UserError unless all have tensors of the same names and shapes, and the same vocabulary.

    What a configuration says of the network's form must agree too, since tensors do not show all of it.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        pair = f"{named(first.path)} and {named(other.path)} cannot be merged"
        for key in ("model_type", "tie_word_embeddings", "rope_theta", "num_attention_heads", "rms_norm_eps"):
            ours, theirs = first.config.get(key), other.config.get(key)
            if ours is not None and theirs is not None and ours != theirs:
                raise UserError(f"{pair}: {key} is {ours} in one and {theirs} in the other")
        for name in sorted(first.shapes.keys() | other.shapes.keys()):
            ours, theirs = first.shapes.get(name), other.shapes.get(name)
            if ours != theirs:
                what = f"{name} is {_shape(ours)} in one and {_shape(theirs)} in the other"
                raise UserError(f"{pair}: {what}; merge models that began from the same one")
        if difference := _first_difference(first.vocabulary, other.vocabulary):
            raise UserError(f"{pair}: their tokenizers differ: {difference}")


def _first_difference(ours: dict[str, int], theirs: dict[str, int]) -> str:
    if not ours or not theirs or ours == theirs:
        return ""
    by_id, others = {i: token for token, i in ours.items()}, {i: token for token, i in theirs.items()}
    at = min(i for i in by_id.keys() | others.keys() if by_id.get(i) != others.get(i))
    return f"id {at} is {by_id.get(at)!r} in one and {others.get(at)!r} in the other"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{named(path)}: not valid JSON ({error}); copy the checkpoint again") from error
    if not isinstance(tree, dict):
        raise UserError(f"{named(path)}: not a JSON object; copy the checkpoint again")
    return tree


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    refuse_pointer(path)
    try:
        with safe_open(path, "pt") as tensors:
            names = list(tensors.keys())
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise UserError(f"{named(path)}: damaged ({error}); copy the checkpoint again") from error


def check_weights(directory: Path, source: Checkpoint) -> None:
    """Raises UserError unless the tensors of a merge are those of the source, and finite."""
    seen: set[str] = set()
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                seen.add(name)
                if not torch.isfinite(tensors.get_tensor(name)).all():
                    raise UserError(f"the merge is not finite: {name}; are the models it is made of?")
    missing = source.shapes.keys() - seen
    if source.config.get("tie_word_embeddings"):
        missing -= {"lm_head.weight"}
    if missing:
        raise UserError(
            f"the merge lacks {', '.join(sorted(missing)[:3])}; MergeKit does not know this model"
        )


def _vocabulary(tree: dict[str, Any], path: Path) -> dict[str, int]:
    try:
        vocabulary = tree["model"]["vocab"]
        if isinstance(vocabulary, list):  # unigram: pairs of token and score, in the order of ids
            vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
        added = {entry["content"]: entry["id"] for entry in tree.get("added_tokens") or []}
        return {**vocabulary, **added}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{named(path)}: not a tokenizer's file; copy the checkpoint again") from error
