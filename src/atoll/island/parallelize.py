"""How a model is laid over the ranks of its island: float8, checkpointing, compile, FSDP2, in this order."""

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
    """The device called `name`; "auto" is the accelerator that torch finds, else the CPU.

    Raises UserError where torch does not know the name, or there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"island.device: {name!r} is not available here; use 'auto' or 'cpu'") from error
    return found


def parallelize(model: Model, mesh: DeviceMesh, island: recipe.Island) -> Model:
    """The same model, changed in place: on the mesh's device, sharded over its ranks, under the same names.

    A model on the meta device gets memory, but no values. On an accelerator the model computes in bf16, with
    fp32 master weights and fp32 gradient reduction; on the CPU in fp32. Raises UserError where `island` asks
    for float8 and it is not available.
    """
    if island.float8:  # first, since it replaces modules
        _use_float8(model, mesh.device_type)
    for block in model.blocks:
        # Before compile, so that compile sees the recomputation and may fuse it.
        if island.activation_checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        # Block by block, since equal blocks are compiled only once. Before sharding, whose hooks must stay
        # outside the compiled graph.
        if island.compile:
            block.compile()
    # A single accelerator needs FSDP2 too: it keeps the fp32 masters of the bf16 weights. A single CPU rank
    # has nothing to shard and computes in fp32.
    if mesh.size() > 1 or mesh.device_type != "cpu":
        _shard(model, mesh, island.cpu_offload)
    where = torch.device("cpu" if island.cpu_offload else mesh.device_type)
    return model.to_empty(device=where) if next(model.parameters()).is_meta else model.to(where)


def _use_float8(model: Model, device_type: str) -> None:
    """Let the blocks' linear layers multiply in float8, one scale per row, where both sizes divide by 16.

    Parameter names stay. Raises UserError without torchao, and on a GPU that has no float8.
    """
    try:
        from torchao import float8  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("island.float8 needs torchao; install it with: pip install 'atoll[float8]'") from None
    if device_type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability() < (8, 9):
        raise UserError("island.float8: this GPU cannot multiply in float8; set it to false")
    config = replace(float8.Float8LinearConfig.from_recipe_name("rowwise"), emulate=device_type == "cpu")

    def fits(module: torch.nn.Module, _: str) -> bool:
        return (
            isinstance(module, torch.nn.Linear) and module.in_features % 16 == module.out_features % 16 == 0
        )

    float8.convert_to_float8_training(model.blocks, config=config, module_filter_fn=fits)


def _shard(model: Model, mesh: DeviceMesh, cpu_offload: bool) -> None:
    on_cpu = mesh.device_type == "cpu"
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = MixedPrecisionPolicy() if on_cpu else bf16
    offload = CPUOffloadPolicy(pin_memory=not on_cpu) if cpu_offload else OffloadPolicy()
    # Ranks gather a block when they run it, so all of them must run it equally often. A model that cannot
    # promise this is gathered as a whole.
    for block in model.blocks if model.runs_blocks_once else ():
        fully_shard(block, mesh=mesh, mp_policy=policy, offload_policy=offload)
    fully_shard(model, mesh=mesh, mp_policy=policy, offload_policy=offload)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Sum the gradients: the loss is divided by the whole island's tokens already.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction
