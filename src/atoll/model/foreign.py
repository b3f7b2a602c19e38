"""Any causal language model of `transformers` behind Llama's `forward`, so that a run can start from it.

Parameters keep the names that they have in `transformers`. Shapes: B windows, L tokens of a window,
D = hidden_size.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atoll.errors import UserError
from atoll.model.attention import Mask
from atoll.model.weights import check_finite

PROBE_TOKENS = 8
CACHES = ("cache", "past_key_values")  # what a base model's cache is called, in new versions and in old ones
TOLERANCE = 1e-3  # relative to the largest logit: room for another order of the same sums, and no more


class Foreign(nn.Module):
    """The hidden states and the head of `causal`, a `...ForCausalLM` model of `transformers`.

    Its dropout stays off in training too, so that an island resumes bit-equal without a generator's state.
    """

    # A forward pass runs the blocks once for each run of documents, and ranks differ in their documents.
    runs_blocks_once = False
    # Both are set in `__dict__`: nn.Module would register them as children. The children of this module are
    # those of `causal`, under their own names.
    _causal: Any
    blocks: nn.ModuleList

    def __init__(self, causal: Any, where: Path) -> None:
        """Raises UserError, naming `where`, unless the logits are hidden states times output embeddings."""
        super().__init__()
        causal.eval()
        head = causal.get_output_embeddings()
        names = {module: name for name, module in causal.named_modules()}
        unreached = list(causal.parameters(recurse=False))  # in none of the children that are taken over
        has_bias = getattr(head, "bias", None) is not None
        if unreached or causal.base_model is causal or head not in names or has_bias:
            raise _unsupported(causal, where)
        causal.get_input_embeddings().padding_idx = None  # else the row of that token would never be trained
        self.config: Any = causal.config
        self._base, self._head = names[causal.base_model], names[head]
        for name, child in causal.named_children():
            self.add_module(name, child)
        lists = [module for module in causal.base_model.modules() if isinstance(module, nn.ModuleList)]
        blocks = max(
            lists, key=lambda each: sum(p.numel() for p in each.parameters()), default=nn.ModuleList()
        )
        self.__dict__.update(_causal=causal, blocks=blocks)

    @property
    def max_positions(self) -> int | None:
        """The longest window that it can read, as its config says; None for no limit."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def head_weight(self) -> Tensor:
        """The output embeddings [vocab_size, D]."""
        return self.get_parameter(f"{self._head}.weight")

    def forward(self, tokens: Tensor, mask: Mask) -> Tensor:
        """Hidden states [B, L, D] after the last norm, for `tokens` int64 [B, L].

        Each segment of the mask is passed as a sequence of its own, with positions from 0. So nothing can
        look across documents, whatever the model mixes tokens with, and its own support for packed documents
        need not be trusted.
        """
        base = self.get_submodule(self._base)
        pieces = tokens.flatten().split([count * length for count, length in mask.runs])
        hidden = [
            base(input_ids=piece.view(-1, length), use_cache=False).last_hidden_state.flatten(0, 1)
            for piece, (_, length) in zip(pieces, mask.runs, strict=True)
        ]
        return torch.cat(hidden).view(*tokens.shape, -1).clone()  # FSDP2 warns of a view

    def read(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """(hidden states [B, L, D] of tokens [B, L] that follow what is in the cache, the cache after them).

        The cache is one of `transformers`; None for the beginning. Raises UserError for a model without one.
        """
        base = self.get_submodule(self._base)
        known = inspect.signature(base.forward).parameters
        name = next((each for each in CACHES if each in known), None)
        if name is None:
            raise UserError(
                f"a {type(self._causal).__name__} has no key-value cache; write text with transformers itself"
            )
        read = base(input_ids=tokens, use_cache=True, **{name: cache})
        return read.last_hidden_state, getattr(read, name)

    def train(self, mode: bool = True) -> "Foreign":
        """Set only this module's flag: its children stay in evaluation mode, without dropout."""
        self.training = mode
        return self

    def save(
        self,
        directory: Path,
        bos_token_id: int | None,
        eos_token_id: int | list[int] | None,
        dtype: torch.dtype = torch.float32,
        shard_bytes: int = 5_000_000_000,
    ) -> None:
        """Write into `directory`, which exists, the files that `from_pretrained` loads.

        The model itself is left in `dtype`.
        """
        for config in (self._causal.config, self._causal.generation_config):
            config.bos_token_id, config.eos_token_id = bos_token_id, eos_token_id
        self._causal.to(dtype).save_pretrained(directory, max_shard_size=shard_bytes)


def from_config(directory: Path) -> Foreign:
    """The model that a checkpoint's config.json describes, in fp32 on the CPU, with arbitrary weights.

    Raises UserError where `transformers` knows no such causal language model, or it cannot be trained here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        with torch.device("cpu"):
            causal = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # a config.json can be wrong in as many ways as there are models
        raise UserError(
            f"{directory}: transformers cannot make a causal language model of this: {_first_line(error)}"
        ) from error
    return Foreign(causal, directory)


def load(directory: Path) -> Foreign:
    """The model in a checkpoint directory, in fp32 on the CPU, with its weights.

    A few tokens prove that its logits are its hidden states times its output embeddings. Raises UserError as
    `from_config` does, and where weights are missing or damaged.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # as above
        raise UserError(
            f"{directory}: transformers cannot load a causal language model from this: {_first_line(error)}"
        ) from error
    causal, report = loaded
    if wrong := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise UserError(
            f"{directory}: {', '.join(wrong[:5])} missing or of another shape; copy the checkpoint again"
        )
    model = Foreign(causal, directory)
    check_finite(model, directory)
    tokens = torch.arange(PROBE_TOKENS)[None]
    with torch.no_grad():
        ours = model(tokens, Mask.causal(*tokens.shape)) @ model.head_weight.T
        theirs = causal(input_ids=tokens, use_cache=False).logits
    if not (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max():
        raise _unsupported(causal, directory)
    return model


def logits_of(directory: Path, tokens: Tensor) -> Tensor:
    """The logits [B, L, vocab_size], in fp32, of what `transformers` itself loads from a directory."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    causal: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    with torch.no_grad():
        return causal.eval()(input_ids=tokens, use_cache=False).logits


def chat_tokens(directory: Path, messages: list[dict[str, str]]) -> list[int]:
    """The ids of a conversation, up to where the assistant answers, by the chat template in a directory.

    Raises UserError where there is none, or it cannot be used.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template has put the BOS there already.
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # a template is a program: whatever it runs into
        raise UserError(
            f"{directory}: no chat template that can be used ({_first_line(error)}); leave --chat out"
        ) from error


def _unsupported(causal: Any, where: Path) -> UserError:
    return UserError(
        f"{where}: a {type(causal).__name__} cannot be trained here, because its logits are more than its "
        "hidden states times its output embeddings; choose another model"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
