"""The ranks of one island: the processes that torchrun started, or this process alone. They never change.

All ranks call everything here, in the same order. They share a file system: rank 0 talks to the island's
agent, and each rank maps the agent's files to read and write its own rows.
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

# How long a rank waits for the others. Long, because they wait whenever rank 0 waits for the swarm. Rank 0
# gives up within an hour on an agent that says nothing, and the death of a rank is noticed at once, because
# its sockets close.
TIMEOUT = timedelta(hours=2)
T = TypeVar("T")


class Ranks:
    """This process as one of the ranks of an island: `number`, from 0, of `count`."""

    def __init__(self, group: dist.ProcessGroup, owns_default: bool = False) -> None:
        self.number = dist.get_rank(group)
        self.count = dist.get_world_size(group)
        self.group = group  # gloo: for messages between the host programs, not for tensors on devices
        self._owns_default = owns_default

    @classmethod
    def of_torchrun(cls) -> Ranks:
        """The ranks that torchrun's environment describes; without torchrun, this process alone.

        If the program has already made a default process group, it is used, and `close` leaves it.
        """
        owns_default = not dist.is_initialized()
        if owns_default:
            accelerator = torch.accelerator.current_accelerator(check_available=True)
            backend = "gloo"
            if accelerator is not None:
                backend = f"cpu:gloo,{accelerator.type}:{dist.get_default_backend_for_device(accelerator)}"
            if "WORLD_SIZE" in os.environ:
                dist.init_process_group(backend, timeout=TIMEOUT)
            else:
                dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return cls(_gloo(), owns_default)

    def another(self) -> Ranks:
        """The same ranks with another group, for a second thread: messages of two threads must not mix."""
        return Ranks(_gloo())

    def device_mesh(self, device: torch.device) -> DeviceMesh:
        """A one-dimensional mesh over all ranks; each has a device of its own, of the type of `device`."""
        if device.type != "cpu":
            torch.accelerator.set_device_index(device.index or int(os.environ.get("LOCAL_RANK", "0")))
        return init_device_mesh(device.type, (self.count,), mesh_dim_names=("rows",))

    def first(self, compute: Callable[[], T]) -> T:
        """The result of `compute` on every rank, though only the first rank, rank 0, calls it.

        A UserError in `compute` is raised on every rank too. The result must be picklable.
        """
        if self.count == 1:
            return compute()
        result_and_error: list[Any] = [None, None]
        if self.number == 0:
            try:
                result_and_error = [compute(), None]
            except UserError as error:
                result_and_error = [None, str(error)]
        dist.broadcast_object_list(result_and_error, group=self.group, group_src=0)
        result, error_text = result_and_error
        if error_text is not None:
            raise UserError(error_text)
        return result

    def wait(self) -> None:
        """Wait until every rank has called this."""
        if self.count > 1:
            dist.barrier(self.group)

    def close(self) -> None:
        """Destroy the default process group, if `of_torchrun` made it."""
        if self._owns_default and dist.is_initialized():
            dist.destroy_process_group()


def own_rows(parameter: Tensor) -> tuple[int, Tensor]:
    """(number of elements before this rank's part of a parameter, that part, which shares the memory).

    (0, the parameter) where it is not sharded. FSDP2 gives each rank contiguous rows, as torch.chunk does.
    """
    if not isinstance(parameter, DTensor):
        return 0, parameter
    rows_per_rank = -(-parameter.shape[0] // parameter.device_mesh.size())
    first_row = min(parameter.device_mesh.get_local_rank() * rows_per_rank, parameter.shape[0])
    return first_row * (parameter.numel() // max(1, parameter.shape[0])), parameter.to_local()


def _gloo() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)
    return group
