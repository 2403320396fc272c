"""The processes of a run: one, or those that `torchrun` started."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process's place among `count` processes, and its device."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "cpu") -> "Processes":
        """Alone, or one of those that `torchrun` started (its environment variables, or an initialised group).

        `device`: `cpu` or `cuda`; with `cuda` each process of a machine takes the GPU of its local rank. Processes wait
        for one another up to a day: shares may take unequally long.
        """
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group("gloo", timeout=timedelta(days=1))
        if not dist.is_initialized():
            return cls(0, 1, torch.device(device))
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return cls(dist.get_rank(), dist.get_world_size(), torch.device(device))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def from_first(self, function: Callable[[], Value]) -> Value:
        """What `function` returns in the first process, for all; an error there is raised in all."""
        if self.count == 1:
            return function()
        box: list[Any] = [None, None]
        if self.is_first:
            try:
                box[0] = function()
            except (ValueError, OSError) as error:
                box[1] = error
        dist.broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in order of rank, for all; waits for the slowest."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values
