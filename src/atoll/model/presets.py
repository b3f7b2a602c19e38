"""The dimensions of a Llama: `LlamaConfig`, the presets, and what a recipe's `[model]` means. No torch."""

from pathlib import Path
from typing import Any

import msgspec

from atoll import recipe
from atoll.errors import UserError
from atoll.given import read_text


class ForeignError(UserError):
    """The checkpoint is not of a plain Llama; `model/foreign.py` may be able to read it."""


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True):
    """Llama 3's scaling of the slow rotary frequencies, with the names of transformers' `rope_scaling`."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


class LlamaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A Llama's dimensions, with the names of transformers' `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False

    @property
    def num_parameters(self) -> int:
        """The number of trained parameters; tied embeddings count once."""
        head_dim, hidden = self.head_dim, self.hidden_size
        attention = hidden * head_dim * 2 * (self.num_attention_heads + self.num_key_value_heads)
        layer = attention + 3 * hidden * self.intermediate_size + 2 * hidden
        embeddings = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + hidden


PRESETS = {
    # Of the shapes tried on one core and English text, the one with the lowest held-out loss after equal
    # time. Two layers are 1.5 times as fast as four at equal loss. An untied head costs no time and stays
    # stable at high learning rates.
    "demo": LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        rope_theta=10_000.0,
    ),
    # For experiments: 154 M parameters besides the embeddings.
    "150m": LlamaConfig(
        vocab_size=32_000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=64,
        max_position_embeddings=2048,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
    ),
    # Llama 3.2 1B and 3B, Llama 3.1 8B.
    "1b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=131_072,
        rope_scaling=RopeScaling(factor=32.0),
        tie_word_embeddings=True,
    ),
    "3b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131_072,
        rope_scaling=RopeScaling(factor=32.0),
        tie_word_embeddings=True,
    ),
    "8b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131_072,
        rope_scaling=RopeScaling(),
    ),
    "intellect-1": LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=42,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=8192,
    ),
}


def resolve(model: recipe.Model, vocab_size: int) -> LlamaConfig:
    """The dimensions that a recipe's `[model]` means, for a tokenizer of `vocab_size` tokens.

    Raises UserError for an unknown preset, an unreadable `from`, dimensions that do not fit one another, or a
    tokenizer larger than the model's vocabulary.
    """
    if model.from_ is not None:
        config = read_config(model.checkpoint)
    elif model.preset not in PRESETS:
        raise UserError(
            f"model.preset: no preset is named {model.preset!r}; the presets are {', '.join(PRESETS)}"
        )
    else:
        config = _overridden(PRESETS[model.preset], model.dimensions)
    if vocab_size > config.vocab_size:
        raise UserError(
            f"model.vocab_size: the tokenizer has {vocab_size} tokens, the model only {config.vocab_size}; "
            "give a smaller tokenizer or a larger model.vocab_size"
        )
    return config


def read_config(directory: Path) -> LlamaConfig:
    """The dimensions in the `config.json` of a transformers checkpoint, with old or new rope keys.

    Raises UserError where the file is missing or damaged, and ForeignError where it describes anything but a
    plain Llama.
    """
    path = directory / "config.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; give the directory of a transformers checkpoint")
    try:
        tree = msgspec.json.decode(read_text(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON object: {error}") from error
    plain = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for key, value in plain.items():
        if tree.get(key, value) != value:
            raise ForeignError(
                f"{path}: {key} is {tree[key]!r}; only plain Llama checkpoints ({value!r}) can be read"
            )
    scaling = tree.get("rope_parameters") or tree.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise UserError(f"{path}: its rope parameters are no object; copy the checkpoint again")
    rope = {"rope_theta": tree.get("rope_theta"), **scaling}
    rope_type = rope.get("rope_type") or rope.get("type", "default")
    if rope_type not in ("default", "llama3"):
        raise ForeignError(f"{path}: rope_type is {rope_type!r}; only 'default' and 'llama3' can be read")
    known = {"num_key_value_heads": tree.get("num_attention_heads"), "rms_norm_eps": 1e-6, **tree}
    known["rope_theta"] = rope.get("rope_theta") or 10_000.0
    known["rope_scaling"] = rope if rope_type == "llama3" else None
    try:
        if known.get("head_dim") is None:
            known["head_dim"] = _head_dim(tree.get("hidden_size", 0), tree.get("num_attention_heads", 0))
        config = msgspec.convert(known, LlamaConfig)
        _check_heads(config)
        return config
    except (msgspec.ValidationError, UserError, TypeError) as error:  # TypeError: arithmetic with a text
        raise UserError(f"{path}: {error}") from error


def published(config: LlamaConfig, context_length: int) -> LlamaConfig:
    """The dimensions of a model's export: as many positions at least as it was trained on."""
    positions = max(context_length, config.max_position_embeddings)
    return msgspec.structs.replace(config, max_position_embeddings=positions)


def config_tree(config: LlamaConfig, dtype: str) -> dict[str, Any]:
    """config.json, with the rope keys of transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters).

    Only the ids of special tokens are left out, which are the tokenizer's.
    """
    tree: dict[str, Any] = msgspec.to_builtins(config)
    scaling = {"rope_type": "llama3", **tree["rope_scaling"]} if config.rope_scaling else None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **tree,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": config.rope_theta, **(scaling or {"rope_type": "default"})},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def _overridden(preset: LlamaConfig, overrides: dict[str, Any]) -> LlamaConfig:
    """The preset with some dimensions replaced, and head_dim adapted. Raises UserError if they do not fit."""
    config = msgspec.structs.replace(preset, **overrides)
    if "hidden_size" in overrides or "num_attention_heads" in overrides:
        head_dim = _head_dim(config.hidden_size, config.num_attention_heads)
        config = msgspec.structs.replace(config, head_dim=head_dim)
    _check_heads(config)
    return config


def _check_heads(config: LlamaConfig) -> None:
    if config.num_key_value_heads < 1 or config.num_attention_heads % config.num_key_value_heads:
        raise UserError(
            f"model.num_key_value_heads: must divide model.num_attention_heads, "
            f"and {config.num_key_value_heads} does not divide {config.num_attention_heads}"
        )


def _head_dim(hidden_size: int, num_attention_heads: int) -> int:
    """The size of a head, which must be even because rotary positions turn pairs of elements."""
    if num_attention_heads <= 0 or hidden_size <= 0 or hidden_size % (2 * num_attention_heads):
        raise UserError(
            "model.hidden_size: must be a multiple of twice model.num_attention_heads, "
            f"and {hidden_size} is not one of 2 x {num_attention_heads}"
        )
    return hidden_size // num_attention_heads
