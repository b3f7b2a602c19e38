"""How a model is laid over the ranks of its island."""

from dataclasses import replace
from functools import partial

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.utils.checkpoint import checkpoint

from atoll import recipe
from atoll.errors import UserError
from atoll.model.hf import Model


def device(name: str) -> torch.device:
    """The device of that name; `auto` is the accelerator torch finds, else the CPU.

    Raises UserError where torch does not know the name or the device is not there.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"island.device: {name!r} is not to be had here; use 'auto' or 'cpu'") from error
    return found


def parallelize(model: Model, mesh: DeviceMesh, island: recipe.Island) -> Model:
    """The same model, in place, under the same names: on the mesh's device, in the order that the steps need.

    A model on the meta device gets memory, but no values. On an accelerator it computes in bf16, with fp32
    master weights and reduction; on the CPU in fp32. Raises UserError for float8 that is not to be had.
    """
    if island.float8:  # first: it puts other modules in the place of these
        _multiply_in_float8(model, mesh.device_type)
    for block in model.blocks:
        # Innermost, so that compile sees what is computed again and may fuse it.
        if island.activation_checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        # Block by block: equal blocks are compiled once. Before sharding, whose hooks must stay outside the
        # graph.
        if island.compile:
            block.compile()
    # FSDP2 also on a single accelerator, where it is what keeps fp32 masters of bf16 weights. A single CPU
    # rank has nothing to shard nor to narrow.
    if mesh.size() > 1 or mesh.device_type != "cpu":
        _shard(model, mesh, island.cpu_offload)
    where = torch.device("cpu" if island.cpu_offload else mesh.device_type)
    return model.to_empty(device=where) if next(model.parameters()).is_meta else model.to(where)


def _multiply_in_float8(model: Model, device_type: str) -> None:
    """The blocks' linear layers under the same names, their products in float8 with a scale a row, where
    sizes allow.
    """
    try:
        from torchao import float8  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("island.float8 needs torchao; install it with: pip install 'atoll[float8]'") from None
    if device_type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability() < (8, 9):
        raise UserError("island.float8: this GPU cannot multiply in float8; leave it out")
    config = replace(float8.Float8LinearConfig.from_recipe_name("rowwise"), emulate=device_type == "cpu")

    def fits(module: torch.nn.Module, _: str) -> bool:
        return (
            isinstance(module, torch.nn.Linear) and module.in_features % 16 == module.out_features % 16 == 0
        )

    float8.convert_to_float8_training(model.blocks, config=config, module_filter_fn=fits)


def _shard(model: Model, mesh: DeviceMesh, cpu_offload: bool) -> None:
    narrow = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    on_cpu = mesh.device_type == "cpu"
    policy = MixedPrecisionPolicy() if on_cpu else narrow
    offload = CPUOffloadPolicy(pin_memory=not on_cpu) if cpu_offload else OffloadPolicy()
    # Ranks gather a block when they run it, so all of them must run it equally often; else the model is one
    # unit.
    for block in model.blocks if model.one_pass else ():
        fully_shard(block, mesh=mesh, mp_policy=policy, offload_policy=offload)
    fully_shard(model, mesh=mesh, mp_policy=policy, offload_policy=offload)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the whole island's tokens already
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
