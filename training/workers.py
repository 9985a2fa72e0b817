"""The processes that train together, as torchrun starts them, and the device of this one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """All processes of a training, over all hosts; on its own a process is the only one.

    Attributes:
        device: what this one computes on.
        rank: its number; 0 writes files and speaks.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, network: nn.Module) -> nn.Module:
        """The network, with gradients that are averaged over all processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, [self.device] if self.device.type == "cuda" else None)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all have to ask."""
        if self.size == 1:
            return flag
        asked = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked.item())

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes; all have to ask."""
        if self.size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value / self.size

    def agree(self, value: Any, weight: int = 0) -> Any:
        """What the process with the greatest weight holds, the first of them if several do; all have to ask."""
        if self.size == 1:
            return value
        weights: list[Any] = [None] * self.size
        dist.all_gather_object(weights, weight)
        held = [value]
        dist.broadcast_object_list(held, weights.index(max(weights)))
        return held[0]


@contextmanager
def workers(environment: Mapping[str, str] = os.environ) -> Iterator[Workers]:
    """Join the processes that torchrun has started, or be the only one."""
    accelerator = torch.accelerator.current_accelerator()
    device = accelerator or torch.device("cpu")
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Workers(device)
        return
    if accelerator:
        device = torch.device(accelerator.type, int(environment["LOCAL_RANK"]))
        torch.accelerator.set_device_index(device.index)
    backend = torch.distributed.get_default_backend_for_device(device)
    dist.init_process_group(backend, store=_store(environment), rank=int(environment["RANK"]), world_size=size)
    try:
        yield Workers(device, int(environment["RANK"]), size)
    finally:
        dist.destroy_process_group()


def _store(environment: Mapping[str, str]) -> Store:
    """Where the processes find one another: torchrun's store.

    It outlives a restart, and what a killed process had left there would send the others to an address where nobody is.
    So each attempt has keys of its own; over several hosts it must not, since each of them counts its own restarts.
    """
    store: Store
    store, _, _ = next(rendezvous("env://"))
    if environment.get("GROUP_WORLD_SIZE") == "1":
        return PrefixStore(f"attempt-{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store
