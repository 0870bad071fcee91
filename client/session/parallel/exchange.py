"""What the processes of one site say to each other: sums and tensors, on this machine alone.

Orders go over a socket pair that only these processes hold. Tensors go over torch.distributed: NCCL
between GPUs, gloo on 127.0.0.1 between CPUs. The group is made without torch's default one, of
which a process has a single one, and without a port for its rendezvous.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_TIMEOUT = timedelta(minutes=30)  # a step over a whole body takes minutes; death is seen at once
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Form:
    """The shape and type of a tensor that comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Form":
        """Return the form of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype)


class Exchange:
    """One process's end of the group.

    Args:
        rank: Its number; 0 holds the patients and the model.
        size: How many processes there are.
        store: A file in a folder of this account's alone, where they find each other.
    """

    def __init__(self, rank: int, size: int, store: Path, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        meeting = dist.FileStore(str(store), size)  # type: ignore[attr-defined] # not in its stubs
        self._group: Any
        if device.type == "cuda":
            torch.cuda.set_device(device)
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = _TIMEOUT
            self._group = dist.ProcessGroupNCCL(meeting, rank, size, options)
        else:
            chosen = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined] # not in its stubs
            chosen._timeout = _TIMEOUT
            chosen._devices = [dist.ProcessGroupGloo.create_device(hostname=_LOOPBACK)]
            self._group = dist.ProcessGroupGloo(meeting, rank, size, chosen)
        self._sent: dict[int, list[tuple[Any, Tensor]]] = {}

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give everybody process 0's numbers, in place."""
        for alike in _by_dtype(tensors):
            flat = _flat(alike)
            self._group.broadcast(flat, 0).wait()
            if self.rank:
                _copy_back(flat, alike)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place."""
        for alike in _by_dtype(tensors):
            flat = _flat(alike)
            self._group.allreduce([flat]).wait()
            _copy_back(flat, alike)

    def send(self, tensors: Sequence[Tensor], to: int) -> None:
        """Send tensors without waiting for them to arrive; those sent before have arrived then."""
        for work, _ in self._sent.pop(to, []):
            work.wait()
        self._sent[to] = []
        for tensor in tensors:
            data = _bytes(tensor)
            if data.numel():
                self._sent[to].append((self._group.send([data], to, 0), data))

    def receive(self, forms: Sequence[Form], sender: int) -> list[Tensor]:
        """Return tensors of these forms that a process sent."""
        found = [torch.empty(form.shape, dtype=form.dtype, device=self.device) for form in forms]
        for tensor in found:
            data = _bytes(tensor)
            if data.numel():
                self._group.recv([data], sender, 0).wait()
        return found


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def _copy_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for part, tensor in zip(parts, tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _by_dtype(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return list(found.values())
