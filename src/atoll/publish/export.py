"""`atoll export`: the newest outer state that commit records prove, as a checkpoint for `transformers`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from atoll import recipe as recipes
from atoll.agent import checkpoint, membership
from atoll.agent.log import UpdateLog
from atoll.data.manifest import TOKENIZER_DIR, Manifest
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.files import atomic_dir
from atoll.model import hf, lora
from atoll.publish.card import card
from atoll.recipe import Recipe
from atoll.run.directory import RunDir


def export(run_dir: RunDir, out: Path) -> tuple[Path, checkpoint.OuterCheckpoint]:
    """Write model, tokenizer and card to `out`, whole or not at all; return `out` and the outer checkpoint.

    Raises UserError when `out` is not empty, or there is no outer checkpoint that the records prove.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there and not empty; choose another directory or empty this one")
    if out.exists() and (out.is_symlink() or out.is_mount() or out.samefile(Path.cwd())):
        raise UserError(
            f"{out}: a link, a mounted file system or the current directory cannot be replaced by a whole "
            f"checkpoint; name a new directory, as in {out / 'model'}"
        )
    recipe, saved, ledger = newest_state(run_dir)
    model = load_model(recipe, Manifest.load(run_dir.data).vocab_size, saved)
    tokenizer = Tokenizer.load(run_dir.data / TOKENIZER_DIR / "tokenizer.json")
    with atomic_dir(out) as temporary:
        hf.save_model(
            temporary,
            model,
            context_length=recipe.inner.context_length,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_ids,
        )
        tokenizer.save(temporary)
        (temporary / "README.md").write_text(card(recipe, saved.step, saved.root, ledger))
    return out, saved


def newest_state(run_dir: RunDir) -> tuple[Recipe, checkpoint.OuterCheckpoint, dict[str, int]]:
    """(recipe, newest proven outer checkpoint of the islands in `run_dir`, committed tokens by island id).

    Proven: its root is the one that the island's signed commit records give for its step, and its bytes have
    that root. Raises UserError where there is none.
    """
    try:
        return _newest_state(run_dir)
    except PermissionError as error:
        raise UserError(
            f"{error.filename}: not permitted to read; export as the user whose run this is"
        ) from error


def _newest_state(run_dir: RunDir) -> tuple[Recipe, checkpoint.OuterCheckpoint, dict[str, int]]:
    damaged = ""
    candidates: list[tuple[checkpoint.OuterCheckpoint, membership.Membership, Path]] = []
    # `glob` would pass over a directory that may not be read.
    for directory in sorted(run_dir.islands.iterdir()) if run_dir.islands.exists() else []:
        member = membership.load(directory)
        if member is not None:
            candidates += [(saved, member, directory) for saved in checkpoint.newest([directory / "outer"])]
    for saved, member, directory in sorted(candidates, key=lambda c: -c[0].step):
        log = UpdateLog(directory / "log", saved.layout, member.run.record_key)
        if saved.step > log.head or log.root(saved.step, member.run.genesis_root) != saved.root:
            continue
        try:
            saved.verify()
        except UserError as error:
            damaged = f" ({error})"
            continue
        ledger: dict[str, int] = {}
        for record in log.records[: saved.step]:
            for share in record.participants:
                ledger[share.island] = ledger.get(share.island, 0) + share.tokens
        return recipes.parse(member.run.recipe, member.run_id), saved, ledger
    raise UserError(
        f"{run_dir.path}: no outer checkpoint here that the run's commit records prove{damaged}; "
        "let the run commit some steps first"
    )


def load_model(recipe: Recipe, vocab_size: int, saved: checkpoint.OuterCheckpoint) -> hf.Model:
    """The recipe's model with the weights of an outer state, adapters merged, in fp32 on the CPU."""
    model = hf.build(recipe.model, vocab_size)
    parameters: dict[str, Any] = dict(model.named_parameters())
    lora.check_base(model, [tensor.name for tensor in saved.layout.tensors], recipe.model.checkpoint)
    with torch.no_grad():
        for tensor, where in saved.layout.tensor_slices():
            if tensor.name.startswith(lora.BASE):
                continue
            values = np.array(saved.parameters[where]).reshape(tensor.shape)
            parameters[tensor.name].copy_(torch.from_numpy(values))
    if recipe.model.lora is not None:
        lora.merge(model)
    return model
