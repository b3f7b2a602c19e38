"""The processes of one island: those that torchrun started, or this one alone. Fixed for the island's life.

Everything here is called by all ranks, in the same order. Ranks share a file system: rank 0 talks to the
island's agent, and each maps the agent's files for its own rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from atoll.errors import UserError

# The other ranks wait while rank 0 waits for the swarm. It gives up by itself, within an hour, on an agent
# that says nothing; and the death of a rank closes its sockets, which is noticed at once.
PATIENCE = timedelta(hours=2)
T = TypeVar("T")


class Ranks:
    """This process among its island's: `number` of `count`. Rank 0 speaks for the island."""

    def __init__(self, group: dist.ProcessGroup, owns_default: bool = False) -> None:
        self.number = dist.get_rank(group)
        self.count = dist.get_world_size(group)
        self.group = group  # gloo, for what hosts say to one another
        self._owns_default = owns_default

    @classmethod
    def of_torchrun(cls) -> Ranks:
        """The ranks that torchrun's environment describes; without it, this process alone.

        A default process group that is already there (an own loop's) is used and left as it is.
        """
        owns_default = not dist.is_initialized()
        if owns_default:
            accelerator = torch.accelerator.current_accelerator(check_available=True)
            backend = "gloo"
            if accelerator is not None:
                backend = f"cpu:gloo,{accelerator.type}:{dist.get_default_backend_for_device(accelerator)}"
            if "WORLD_SIZE" in os.environ:
                dist.init_process_group(backend, timeout=PATIENCE)
            else:
                dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return cls(_gloo(), owns_default)

    def another(self) -> Ranks:
        """The same ranks for another thread: what two threads say to one another must not mix."""
        return Ranks(_gloo())

    def device_mesh(self, device: torch.device) -> DeviceMesh:
        """A mesh of one dimension over all ranks, on devices like `device`; of several, each rank has its
        own.
        """
        if device.type != "cpu":
            torch.accelerator.set_device_index(device.index or int(os.environ.get("LOCAL_RANK", "0")))
        return init_device_mesh(device.type, (self.count,), mesh_dim_names=("rows",))

    def first(self, compute: Callable[[], T]) -> T:
        """What `compute` gives on rank 0, where alone it runs, on every rank; so too its UserError."""
        if self.count == 1:
            return compute()
        said: list[Any] = [None, None]
        if self.number == 0:
            try:
                said = [compute(), None]
            except UserError as error:
                said = [None, str(error)]
        dist.broadcast_object_list(said, group=self.group, group_src=0)
        if said[1] is not None:
            raise UserError(said[1])
        return said[0]

    def wait(self) -> None:
        """Until every rank has come here."""
        if self.count > 1:
            dist.barrier(self.group)

    def close(self) -> None:
        """End the process group if it was made here."""
        if self._owns_default and dist.is_initialized():
            dist.destroy_process_group()


def own_rows(parameter: Tensor) -> tuple[int, Tensor]:
    """This rank's part of a parameter, sharing its memory, and the number of elements that lie before it.

    The whole, and 0, where the parameter is not sharded. FSDP2 gives each rank neighbouring rows, as
    torch.chunk does.
    """
    if not isinstance(parameter, DTensor):
        return 0, parameter
    rows_per_rank = -(-parameter.shape[0] // parameter.device_mesh.size())
    first_row = min(parameter.device_mesh.get_local_rank() * rows_per_rank, parameter.shape[0])
    return first_row * (parameter.numel() // max(1, parameter.shape[0])), parameter.to_local()


def _gloo() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    return group
