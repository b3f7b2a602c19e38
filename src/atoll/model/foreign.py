"""Any causal language model of `transformers` behind Llama's `forward`, so that fine-tuning can start from
it.

Shapes: B windows, L tokens each, D = hidden_size. Parameters keep the names they have in `transformers`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atoll.errors import UserError
from atoll.model.attention import Mask

PROBE_TOKENS = 8
TOLERANCE = 1e-3  # of the largest logit: another order of the same sums, and no more


class Foreign(nn.Module):
    """Hidden states and head of `causal`, a model `ForCausalLM`. Its dropout stays off, in training as well.

    So a resumed island goes on bit-equal without a generator's state.
    """

    runs_blocks_once = False  # an island's ranks run its blocks as often as each has runs of documents: not in step
    # Set past nn.Module, which would make children of them: ours are `causal`'s own, under the names that
    # they have there.
    _causal: Any
    blocks: nn.ModuleList

    def __init__(self, causal: Any, where: Path) -> None:
        """Raises UserError, naming `where`, for a model whose logits are not hidden states times output
        embeddings.
        """
        super().__init__()
        causal.eval()
        head = causal.get_output_embeddings()
        names = {module: name for name, module in causal.named_modules()}
        own = list(causal.parameters(recurse=False))  # outside of every module that we take over
        if own or causal.base_model is causal or head not in names or getattr(head, "bias", None) is not None:
            raise _unfit(causal, where)
        causal.get_input_embeddings().padding_idx = None  # or that word's row would never be trained
        self.config: Any = causal.config
        self._base, self._head = names[causal.base_model], names[head]
        for name, child in causal.named_children():
            self.add_module(name, child)
        lists = [module for module in causal.base_model.modules() if isinstance(module, nn.ModuleList)]
        largest = max(
            lists, key=lambda each: sum(p.numel() for p in each.parameters()), default=nn.ModuleList()
        )
        self.__dict__.update(_causal=causal, blocks=largest)

    @property
    def head_weight(self) -> Tensor:
        """The output embeddings [vocab_size, D]."""
        return self.get_parameter(f"{self._head}.weight")

    def forward(self, tokens: Tensor, mask: Mask) -> Tensor:
        """Hidden states [B, L, D] after the last norm, for `tokens` int64 [B, L].

        Each segment of the mask is a sequence of its own, with positions from 0: then no kind of attention,
        recurrence or position can look across, and no model's own idea of packing has to be trusted.
        """
        base = self.get_submodule(self._base)
        pieces = tokens.flatten().split([count * length for count, length in mask.runs])
        hidden = [
            base(input_ids=piece.view(-1, length), use_cache=False).last_hidden_state.flatten(0, 1)
            for piece, (_, length) in zip(pieces, mask.runs, strict=True)
        ]
        return torch.cat(hidden).view(*tokens.shape, -1).clone()  # FSDP2 warns of a view

    def train(self, mode: bool = True) -> "Foreign":
        self.training = mode
        return self

    def save(self, directory: Path, bos_token_id: int | None, eos_token_id: int | list[int] | None) -> None:
        """Write a directory that `from_pretrained` loads; which is there already."""
        for config in (self._causal.config, self._causal.generation_config):
            config.bos_token_id, config.eos_token_id = bos_token_id, eos_token_id
        self._causal.save_pretrained(directory)


def described(directory: Path) -> Foreign:
    """The model that a checkpoint's config.json describes, in fp32 on the CPU; its weights mean nothing.

    Raises UserError where `transformers` knows no such causal model, or it is none that can be trained here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        with torch.device("cpu"):
            causal = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, OSError, ImportError) as error:
        raise UserError(
            f"{directory}: transformers cannot make a causal language model of this: {_first(error)}"
        ) from error
    return Foreign(causal, directory)


def load(directory: Path) -> Foreign:
    """The model in a checkpoint directory, in fp32 on the CPU, proven to be what its head makes of its hidden
    states.

    Raises UserError as `described` does, and where weights are missing or damaged.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise UserError(
            f"{directory}: transformers cannot load a causal language model from this: {_first(error)}"
        ) from error
    causal, found = loaded
    if wrong := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise UserError(
            f"{directory}: {', '.join(wrong[:5])} missing or of another shape; copy the checkpoint again"
        )
    model = Foreign(causal, directory)
    tokens = torch.arange(PROBE_TOKENS)[None]
    with torch.no_grad():
        ours = model(tokens, Mask.causal(*tokens.shape)) @ model.head_weight.T
        theirs = causal(input_ids=tokens, use_cache=False).logits
    if not (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max():
        raise _unfit(causal, directory)
    return model


def _unfit(causal: Any, where: Path) -> UserError:
    return UserError(
        f"{where}: a {type(causal).__name__} cannot be trained here; its logits are not its hidden "
        "states times "
        "output embeddings alone"
    )


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
