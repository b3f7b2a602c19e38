"""`atoll export`: a committed state as a checkpoint for `transformers`, with its card and its proof."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from atoll.agent.checkpoint import OuterCheckpoint
from atoll.data.manifest import TOKENIZER_DIR, Manifest
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.files import atomic_dir
from atoll.model import hf, lora
from atoll.model.attention import Mask
from atoll.model.foreign import logits_of
from atoll.publish import proof
from atoll.publish.card import write_card
from atoll.publish.gather import facts_of
from atoll.publish.states import CommittedState, committed_state
from atoll.publish.verify import verify
from atoll.recipe import Recipe
from atoll.run.directory import RunDir

Dtype = Literal["fp32", "bf16"]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROBE_TOKENS = 48  # on which the export's logits are compared with ours
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    directory: Path
    state: CommittedState
    logits_difference: float  # the largest, between ours and those of `transformers`
    is_proven: bool  # it carries a proof, which was verified


def export(
    run_dir: RunDir,
    out: Path,
    *,
    step: int | None = None,
    dtype: Dtype = "fp32",
    shard_bytes: int = hf.SHARD_BYTES,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write model, tokenizer, card and proof to `out`, whole or not at all.

    `step`: of the state; the newest at hand, without one. Before it is done, `transformers` has loaded what
    was written and computed our logits with it, and the proof was verified. Raises UserError when `out` is
    not empty, or the state is not at hand.
    """
    check_room(out)
    state = committed_state(run_dir, step)
    recipe = state.recipe
    if recipe.model.own:
        raise UserError(
            f"{run_dir.path}: this run trains a module of its own, which transformers cannot load; its outer "
            f"checkpoints are in {run_dir.islands}/*/outer"
        )
    manifest = Manifest.load(run_dir.data)
    tokenizer = Tokenizer.load(run_dir.data / TOKENIZER_DIR / "tokenizer.json")
    model = load_model(recipe, manifest.vocab_size, state)
    with atomic_dir(out) as temporary:
        difference = write_model(temporary, model, recipe, tokenizer, dtype, shard_bytes)
        is_proven = proof.write(temporary, state)
        write_card(temporary, facts_of(run_dir, state, temporary, is_proven))
        if is_proven:
            verify(temporary, state.member.authority)
        else:
            say("transformers stores the tensors of this model in another form: the export carries no proof")
    return Exported(directory=out, state=state, logits_difference=difference, is_proven=is_proven)


def write_model(
    directory: Path,
    model: hf.Model,
    recipe: Recipe,
    tokenizer: Tokenizer,
    dtype: Dtype,
    shard_bytes: int,
) -> float:
    """Write the files that `transformers` loads; the largest difference of its logits from those of `model`.

    The model's weights are rounded to `dtype` first. Raises RuntimeError for logits that differ.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(DTYPES[dtype]))
    vocab_size, length = len(model.head_weight), min(PROBE_TOKENS, recipe.inner.context_length)
    tokens = torch.randint(vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = tokenizer.bos_id
    with torch.no_grad():
        ours = model.eval()(tokens, Mask.causal(*tokens.shape)) @ model.head_weight.T
    hf.save_model(
        directory,
        model,
        context_length=recipe.inner.context_length,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_ids,
        dtype=DTYPES[dtype],
        shard_bytes=shard_bytes,
    )
    tokenizer.save(directory)
    difference = float((logits_of(directory, tokens) - ours).abs().max())
    if not difference <= LOGIT_TOLERANCE:
        raise RuntimeError(
            f"our logits and those of transformers differ by {difference}: the export is wrong, and not kept"
        )
    return difference


def load_model(recipe: Recipe, vocab_size: int, saved: CommittedState | OuterCheckpoint) -> hf.Model:
    """The recipe's model with the weights of an outer state, adapters merged, in fp32 on the CPU."""
    model = trained_model(recipe, vocab_size, saved)
    if recipe.model.lora is not None:
        lora.merge(model)
    return model


def trained_model(recipe: Recipe, vocab_size: int, saved: CommittedState | OuterCheckpoint) -> hf.Model:
    """The same as islands train it, with its adapters, where it has some, beside the frozen weights."""
    model = hf.build(recipe.model, vocab_size)
    parameters: dict[str, Any] = dict(model.named_parameters())
    lora.check_base(model, [tensor.name for tensor in saved.layout.tensors], recipe.model.checkpoint)
    with torch.no_grad():
        for tensor, where in saved.layout.tensor_slices():
            if tensor.name.startswith(lora.BASE):
                continue
            values = np.array(saved.parameters[where]).reshape(tensor.shape)
            parameters[tensor.name].copy_(torch.from_numpy(values))
    return model


def check_room(out: Path) -> None:
    """Raises UserError unless `out` can become a whole export."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there and not empty; choose another directory or empty this one")
    if out.exists() and (out.is_symlink() or out.is_mount() or out.samefile(Path.cwd())):
        raise UserError(
            f"{out}: a link, a mounted file system or the current directory cannot be replaced by a whole "
            f"checkpoint; name a new directory, as in {out / 'model'}"
        )
