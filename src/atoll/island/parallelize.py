"""How a model is laid over the ranks of its island."""

from functools import partial

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
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

    A model on the meta device gets memory, but no values. On an accelerator it computes in bf16, with fp32 master
    weights and reduction; on the CPU in fp32.
    """
    for block in model.blocks:
        # Innermost, so that compile sees what is computed again and may fuse it.
        if island.activation_checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        # Block by block: equal blocks are compiled once. Before sharding, whose hooks must stay outside the graph.
        if island.compile:
            block.compile()
    # FSDP2 also on a single accelerator, where it is what keeps fp32 masters of bf16 weights. A single CPU rank has
    # nothing to shard nor to narrow.
    if mesh.size() > 1 or mesh.device_type != "cpu":
        _shard(model, mesh)
    where = torch.device(mesh.device_type)
    return model.to_empty(device=where) if next(model.parameters()).is_meta else model.to(where)


def _shard(model: Model, mesh: DeviceMesh) -> None:
    narrow = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = MixedPrecisionPolicy() if mesh.device_type == "cpu" else narrow
    # Ranks gather a block when they run it, so all of them must run it equally often; else the model is one unit.
    for block in model.blocks if model.one_pass else ():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the whole island's tokens already
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
