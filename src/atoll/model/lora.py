"""Low-rank adapters beside the frozen weights of a checkpoint (LoRA, arXiv 2106.09685).

What is trained, and so what islands exchange, is the adapters alone. The frozen weights are named by a digest
that is part of that state as a tensor without elements: with other frozen weights it is another state.
Only this file imports peft.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from atoll import recipe
from atoll.errors import UserError
from atoll.files import digest_file

ADAPTER = "default"  # peft's name of an adapter that has none
BASE = "base."  # before the digest, in the name of the tensor that stands for the frozen weights


def adapt(model: Any, lora: recipe.Lora, directory: Path) -> None:
    """Freeze the weights of a model, those of the checkpoint in `directory`, and put adapters beside them.

    Parameters get peft's names. Raises UserError without peft, and where no layer has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("model.lora needs peft; install it with: pip install 'atoll[post]'") from None
    linear = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    if unknown := sorted(set(lora.layers) - linear):
        raise UserError(
            f"model.lora.layers: no linear layer of {directory} is named {', '.join(unknown)}; there are "
            f"{', '.join(sorted(linear))}"
        )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=list(lora.layers),
    )
    model.requires_grad_(False)
    with torch.device("cpu"):
        inject_adapter_in_model(config, model)
    model.base_digest = digest_of(directory)


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters by name, in state-dict order: detached, but sharing the model's memory.

    Where adapters are trained, one of them is without elements, and its name is the digest of what is frozen.
    """
    found = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    digest: str = getattr(model, "base_digest", "")
    return {**found, BASE + digest: torch.empty(0)} if digest else found


def check_base(model: nn.Module, names: list[str], where: Path) -> None:
    """Raises UserError where a run of tensors of these names trains beside other frozen weights."""
    wanted = [name.removeprefix(BASE) for name in names if name.startswith(BASE)]
    ours: str = getattr(model, "base_digest", "")
    if wanted and wanted != [ours]:
        raise UserError(
            f"{where}: other weights than the run's adapters are trained beside (theirs have the digest "
            f"{wanted[0][:12]}, these {ours[:12]}); give the same checkpoint, as island.base "
            "where it lies elsewhere"
        )


@torch.no_grad()
def init_adapters(model: nn.Module, seed: int) -> None:
    """Fill the adapters, so that they change nothing yet: a pure function of shapes, names and the seed."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_B" in name:
            parameter.zero_()
            continue
        key = int.from_bytes(blake3(f"{seed}:{name}".encode()).digest(length=16), "little")
        draws = np.random.Generator(np.random.Philox(key=key)).random(parameter.shape, np.float32)
        bound = parameter.shape[1] ** -0.5  # as peft draws them
        parameter.copy_(torch.from_numpy((2 * draws - 1) * np.float32(bound)))


def merge(model: nn.Module) -> None:
    """Add the adapters to the weights that they stand beside; the model is then as it was before `adapt`.

    Raises ValueError where a sum is not finite.
    """
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)  # type: ignore[attr-defined]
            model.set_submodule(name, module.get_base_layer())
    model.__dict__.pop("base_digest", None)
    model.requires_grad_(True)


def adapter_files(model: nn.Module, lora: recipe.Lora, base: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(the tensors, the adapter_config.json) of the adapters, as peft stores and loads them beside `base`."""
    from peft import LoraConfig

    tensors = {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": value
        for name, value in trained(model).items()
        if not name.startswith(BASE)
    }
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=sorted(lora.layers),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    plain = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
    }
    return tensors, plain


def digest_of(directory: Path) -> str:
    """What names the weights of a checkpoint: a digest of its safetensors files, by name."""
    names = sorted(directory.glob("*.safetensors"))
    return blake3("".join(f"{path.name} {digest_file(path)}\n" for path in names).encode()).hexdigest()
