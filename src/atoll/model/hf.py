"""Models as checkpoint directories that `from_pretrained` of transformers loads, written and read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from atoll import recipe
from atoll.errors import UserError
from atoll.files import open_to_readers
from atoll.given import read_text, refuse_pointer
from atoll.model import foreign, lora
from atoll.model.foreign import Foreign
from atoll.model.llama import Llama
from atoll.model.presets import ForeignError, LlamaConfig, config_tree, published, read_config, resolve
from atoll.model.weights import check_finite, check_names

SHARD_BYTES = 5_000_000_000
WEIGHTS_NAME, INDEX_NAME = "model.safetensors", "model.safetensors.index.json"
Model = Llama | Foreign  # both have forward(tokens, mask) -> hidden states, head_weight and blocks


def build(described: recipe.Model, vocab_size: int) -> Model:
    """The model of a recipe, with arbitrary weights, for a tokenizer of `vocab_size` tokens.

    A Llama is on torch's default device, which may be meta. A foreign model is on the CPU, since it computes
    buffers when it is made; so is one with adapters, whose other weights are those of its checkpoint. Raises
    UserError where there is no such model, or its vocabulary is too small.
    """
    if described.lora is not None:
        with torch.device("cpu"):
            model = open_model(described.checkpoint)
        lora.adapt(model, described.lora, described.checkpoint)
    else:
        try:
            return Llama(resolve(described, vocab_size))
        except ForeignError:
            model = foreign.from_config(described.checkpoint)
    if vocab_size > len(model.head_weight):
        raise UserError(
            f"model.from: the tokenizer has {vocab_size} tokens, the model only {len(model.head_weight)}; "
            "give the tokenizer of that model"
        )
    return model


def open_model(directory: Path) -> Model:
    """The model in a checkpoint directory of `transformers`, in fp32 on the CPU, with its weights.

    Raises UserError where a file is missing or damaged, a weight is not finite, or the model cannot be
    trained here.
    """
    try:
        config, state_dict = load(directory)
    except ForeignError:
        return foreign.load(directory)
    model = Llama(config)
    check_names(state_dict, model, directory)
    model.load_state_dict(state_dict)
    check_finite(model, directory)
    return model


def save_model(
    directory: Path,
    model: Model,
    *,
    context_length: int,
    bos_token_id: int | None,
    eos_token_id: int | list[int] | None,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write into `directory`, which exists, the files that `from_pretrained` loads.

    `context_length`: how far the model was trained, so how many positions its config gives at least. `dtype`:
    of the tensors in the files; more than `shard_bytes` of them become several files and an index.
    """
    if isinstance(model, Foreign):
        model.save(directory, bos_token_id, eos_token_id, dtype, shard_bytes)
        return
    save(
        directory,
        published(model.config, context_length),
        model.state_dict(),
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        dtype=dtype,
        shard_bytes=shard_bytes,
    )


def save(
    directory: Path,
    config: LlamaConfig,
    state_dict: Mapping[str, Tensor],
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | list[int] | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json, generation_config.json and safetensors files into `directory`, which exists.

    The tensors keep their dtype, unless one is given. More than `shard_bytes` of them become several files
    and an index. Raises OSError when a file cannot be written.
    """
    # Written even where None: without them transformers assumes Llama 2's ids 1 and 2, and stops at token 2.
    special = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
    name_of_dtype = str(dtype or next(iter(state_dict.values())).dtype).removeprefix("torch.")
    _write_json(directory / "config.json", {**config_tree(config, name_of_dtype), **special})
    _write_json(directory / "generation_config.json", {"do_sample": True, **special})

    sizes = {name: tensor.numel() * (dtype or tensor.dtype).itemsize for name, tensor in state_dict.items()}
    shards: list[list[str]] = [[]]
    num_bytes = 0  # in the last shard
    for name, size in sizes.items():
        if shards[-1] and num_bytes + size > shard_bytes:
            shards.append([])
            num_bytes = 0
        shards[-1].append(name)
        num_bytes += size
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else WEIGHTS_NAME
        # One shard at a time is converted, so that memory holds no second model.
        tensors = {name: state_dict[name].detach() for name in names}
        _save_tensors(directory / file, {n: t.to(dtype or t.dtype).contiguous() for n, t in tensors.items()})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        tree = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        _write_json(directory / INDEX_NAME, tree)


def load(directory: Path) -> tuple[LlamaConfig, dict[str, Tensor]]:
    """(dimensions, tensors by name in their stored dtype) of a Llama's checkpoint directory.

    Raises UserError where a file is missing or damaged or the number of parameters is not the config's, and
    ForeignError for a model that is not a plain Llama.
    """
    config = read_config(directory)
    index = directory / INDEX_NAME
    try:
        names = set(json.loads(read_text(index))["weight_map"].values()) if index.exists() else None
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: damaged; copy the checkpoint again") from error
    state_dict: dict[str, Tensor] = {}
    for name in sorted(names or {WEIGHTS_NAME}):
        try:
            refuse_pointer(directory / name)
            state_dict |= load_file(directory / name)
        except FileNotFoundError as error:
            raise UserError(f"{directory / name}: no such file; only safetensors can be read") from error
        except OSError as error:
            raise UserError(f"{directory / name}: cannot be read: {error.strerror or error}") from error
        except SafetensorError as error:
            raise UserError(f"{directory / name}: damaged ({error}); copy the checkpoint again") from error
    if config.tie_word_embeddings and (head := state_dict.pop("lm_head.weight", None)) is not None:
        embeddings = state_dict.setdefault("model.embed_tokens.weight", head)  # writers store either, or both
        if not torch.equal(embeddings, head):
            raise UserError(
                f"{directory}: config.json ties the embeddings, but lm_head.weight is another tensor; set "
                "tie_word_embeddings = false in it"
            )
    state_dict = {
        name: value for name, value in state_dict.items() if not name.endswith("rotary_emb.inv_freq")
    }
    num_parameters = sum(value.numel() for value in state_dict.values())
    if num_parameters != config.num_parameters:
        raise UserError(
            f"{directory}: holds {num_parameters:,} parameters where config.json describes "
            f"{config.num_parameters:,}; copy the checkpoint again"
        )
    return config, state_dict


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", "utf-8")


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    open_to_readers(path)


def save_adapter(directory: Path, model: Model, described: recipe.Model) -> None:
    """Write a model's adapters into `directory`, which exists, as peft loads them beside `model.from`."""
    assert described.lora is not None
    tensors, config = lora.adapter_files(model, described.lora, str(described.checkpoint))
    _save_tensors(directory / "adapter_model.safetensors", tensors)
    _write_json(directory / "adapter_config.json", config)
