"""`atoll export --adapter`: the adapters of a committed state alone, as peft loads them beside their base."""

from pathlib import Path

import torch

from atoll.data.manifest import TOKENIZER_DIR, Manifest
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.files import atomic_dir
from atoll.model import hf
from atoll.publish.export import check_room, trained_model
from atoll.publish.states import CommittedState, committed_state
from atoll.run.directory import RunDir


def export_adapter(run_dir: RunDir, out: Path, step: int | None = None) -> CommittedState:
    """Write adapters and tokenizer to `out`, whole or not at all; returns the state that they are of.

    Raises UserError when `out` is not empty, the state is not at hand, or the run trains no adapters.
    """
    check_room(out)
    state = committed_state(run_dir, step)
    if state.recipe.model.lora is None:
        raise UserError(f"--adapter: {run_dir.path} trains all weights, and no adapters (model.lora)")
    with torch.no_grad():
        model = trained_model(state.recipe, Manifest.load(run_dir.data).vocab_size, state)
    with atomic_dir(out) as temporary:
        hf.save_adapter(temporary, model, state.recipe.model)
        Tokenizer.load(run_dir.data / TOKENIZER_DIR / "tokenizer.json").save(temporary)
    return state
