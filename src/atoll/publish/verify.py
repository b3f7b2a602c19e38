"""`atoll verify`: an export against its run's signed records. Needs neither torch nor the run.

What is proven, given the run's certificate: that these weights are, to the last bit, a state that the run has
committed (of bf16 weights: that they are that state, rounded to the nearest); who took part, with how many
tokens; that config.json describes the model of the run's recipe, and that tokenizer.json is the run's.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from atoll import recipe as recipes
from atoll.agent.state import ROW_BYTES
from atoll.errors import UserError
from atoll.given import read_text
from atoll.model.presets import config_tree, published, resolve
from atoll.publish import proof as proofs
from atoll.publish.proof import Proof
from atoll.publish.stored import stored_tensors
from atoll.publish.weights import check_weights
from atoll.recipe import Recipe
from atoll.swarm.chain import objection
from atoll.swarm.identity import common_name, fingerprint, record_key_of, verify_record
from atoll.swarm.layout import root
from atoll.swarm.records import CommitRecord
from atoll.words import listed

# Files that a loader would take weights or code from; an export has none of them.
STRANGE = ("*.bin", "*.pt", "*.pth", "*.py", "*.gguf", "adapter_config.json", "adapter_model.*")
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")  # the tokenizer's, not the recipe's


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was proven of an export."""

    run_id: str
    step: int  # of the state: so many updates are in it
    num_outer_steps: int  # of the whole run
    root: bytes
    record_key: bytes
    fingerprint: bytes  # of the run's certificate
    num_tensors: int
    is_rounded: bool  # the weights are the state's, rounded to bf16
    tokens: dict[str, int]  # that each island gave, by its id
    num_steps: dict[str, int]  # in how many updates each island took part
    unproven: tuple[str, ...]  # what nothing was held against, in sentences


def verify(directory: Path, certificate: bytes | None = None) -> Verified:
    """Hold an export against its run's signed records.

    `certificate` (PEM) is the run's; without it, the one that the export carries is believed. Raises
    UserError, which names what is wrong: the record, or the tensor.
    """
    proof, carried = proofs.read(directory)
    if certificate is not None and fingerprint_of(certificate) != fingerprint_of(carried):
        raise UserError(
            f"{directory}: is of run {common_name(carried)}, whose certificate is not the one given; get "
            "that of this run from whoever hosts it"
        )
    record_key = record_key_of(carried)
    step_root = _check_records(directory, proof, record_key, common_name(carried))
    if root(proof.table) != step_root:
        raise UserError(f"{_records(directory)}: its table is not that of the state that the run has signed")
    if len(proof.table) != proof.run.layout.num_chunks * ROW_BYTES:
        raise UserError(f"{_records(directory)}: its table is not one of the run's layout")
    stored = stored_tensors(directory)
    check_weights(directory, proof, stored)
    recipe = recipes.parse(proof.run.recipe, proof.run.run_id)
    _refuse_strange_files(directory)
    is_rounded = proofs.is_rounded(stored)
    _check_tokenizer(directory, proof)
    unproven = _check_config(directory, recipe, "bfloat16" if is_rounded else "float32")
    tokens, steps = Counter[str](), Counter[str]()
    for share in (share for record in proof.records for share in record.participants):
        tokens[share.island] += share.tokens
        steps[share.island] += 1
    return Verified(
        run_id=proof.run.run_id,
        step=len(proof.records),
        num_outer_steps=recipe.num_outer_steps,
        root=step_root,
        record_key=record_key,
        fingerprint=fingerprint(carried),
        num_tensors=len(stored),
        is_rounded=is_rounded,
        tokens=dict(tokens),
        num_steps=dict(steps),
        unproven=unproven,
    )


def fingerprint_of(certificate: bytes) -> bytes:
    """The fingerprint of a run's certificate (PEM). Raises UserError for what is none."""
    record_key_of(certificate)
    return fingerprint(certificate)


def _records(directory: Path) -> Path:
    return directory / proofs.FOLDER / proofs.RECORDS


def _check_records(directory: Path, proof: Proof, record_key: bytes, run_id: str) -> bytes:
    """The root of the state that a chain of signed records leads to. Raises UserError for a false one."""
    where, run = _records(directory), proof.run
    if run.run_id != run_id or not verify_record(record_key, run.unsigned(), run.signature):
        raise UserError(f"{where}: what it says about the run is not signed by the run")
    for rewind in proof.rewinds:
        if not verify_record(record_key, rewind.unsigned(), rewind.signature):
            raise UserError(f"{where}: its rewind to state {rewind.step} is not signed by the run")
    before: list[CommitRecord] = []
    for record in proof.records:
        if reason := objection(record, before, proof.rewinds, record_key):
            raise UserError(f"{where}: its record of outer step {len(before)} is false: {reason}")
        before.append(record)
    return before[-1].next_root if before else run.genesis_root


def _check_config(directory: Path, recipe: Recipe, dtype: str) -> tuple[str, ...]:
    """What is not proven of config.json, in sentences. Raises UserError where it is not the recipe's."""
    path = directory / "config.json"
    if recipe.model.preset is None:
        return (
            f"{path.name}: the run began with {recipe.model.from_}, whose config its records do not hold",
        )
    wanted = config_tree(published(resolve(recipe.model, 1), recipe.inner.context_length), dtype)
    try:
        tree = msgspec.json.decode(read_text(path), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: not a JSON object: {error}") from error
    keys = sorted(wanted.keys() | tree.keys() - set(SPECIAL))
    if wrong := [key for key in keys if tree.get(key) != wanted.get(key)]:
        texts = (f"{key} = {tree.get(key)!r} (the run's: {wanted.get(key)!r})" for key in wrong)
        raise UserError(f"{path}: was changed: {listed(texts)}")
    return ()


def _check_tokenizer(directory: Path, proof: Proof) -> None:
    path = directory / "tokenizer.json"
    if blake3(read_text(path).encode()).hexdigest() != proof.run.tokenizer:
        raise UserError(f"{path}: is not the tokenizer of the run's data; it was changed, or exchanged")


def _refuse_strange_files(directory: Path) -> None:
    """Raises UserError for a file that a loader might use, and that nothing proves."""
    found = sorted({path for pattern in STRANGE for path in directory.glob(pattern)})
    if found:
        raise UserError(
            f"{found[0]}: no part of an export, and a loader might use it in the place of the weights; "
            "remove it"
        )
