"""A device that is not there: it computes on the CPU, and writes down who waits for it.

Tensors "on the device" say so (torch's ``PrivateUse1`` backend) and hold their numbers in ordinary
memory. An operation with a tensor on each side is refused, as a GPU refuses it. Each operation for
which a process would wait for a GPU is counted, and so is the memory that the device would need.

To be used in a process of its own, before its first backward pass: a backend stays registered.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_NAME = "standin"
_setup_privateuseone_for_python_backend(_NAME)  # type: ignore[no-untyped-call]
DEVICE = torch.device(_NAME, 0)
_CPU = torch.device("cpu")
_aten = torch.ops.aten
_PRODUCT = ("client", "common", "simulations", "server")
_ROOT = str(Path(__file__).resolve().parents[4])

# What a process waits for on a GPU, and how often: they look at values to know a size, or return
# one. ``bincount`` looks at the least and at the largest.
_WAITS = {
    _aten._local_scalar_dense.default: 1,
    _aten.nonzero.default: 1,
    _aten.masked_select.default: 1,
    _aten._unique2.default: 1,
    _aten.unique_dim.default: 1,
    _aten.equal.default: 1,
    _aten.is_nonzero.default: 1,
    _aten.bincount.default: 2,
}
_FILLED_FROM_NUMBERS = (torch.tensor, torch.as_tensor)


class MixedDevicesError(RuntimeError):
    """An operation has tensors of the device and of the CPU."""


@dataclass
class Traffic:
    """What went between a process and the device.

    Attributes:
        waits: Where the process waited for the device to come to a result.
        blocking: Where it waited for a copy to the device.
        transfers: Copies to the device that it did not wait for.
        sent_bytes: What all copies to the device held.
        peak_bytes: The most that lay on the device at a time.
        capacity_bytes: More than this is an error, as on a GPU; None is without limit.
    """

    waits: Counter[str] = field(default_factory=Counter)
    blocking: Counter[str] = field(default_factory=Counter)
    transfers: int = 0
    sent_bytes: int = 0
    peak_bytes: int = 0
    capacity_bytes: int | None = None

    @property
    def synchronisations(self) -> int:
        """How often the process waited, for whatever."""
        return self.waits.total() + self.blocking.total()


class _Memory:
    """The storages that lie on the device."""

    def __init__(self) -> None:
        self._tensors: Counter[int] = Counter()
        self._bytes: dict[int, int] = {}
        self.held_bytes = 0

    def hold(self, tensor: "OnDevice", held: Tensor) -> None:
        storage = held.untyped_storage()
        place = storage.data_ptr()
        if not self._tensors[place]:
            self._bytes[place] = storage.nbytes()
            self.held_bytes += storage.nbytes()
        self._tensors[place] += 1
        weakref.finalize(tensor, self._release, place)

    def _release(self, place: int) -> None:
        self._tensors[place] -= 1
        if not self._tensors[place]:
            self.held_bytes -= self._bytes.pop(place)


_MEMORY = _Memory()
_TRAFFIC = Traffic()
_PINNED: set[int] = set()  # page-locked storages; none is given back, so no place comes twice
_PINNED_TENSORS: list[Tensor] = []


class OnDevice(torch.Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        """Return a tensor that says it lies on the device."""
        made: OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        return made

    def __init__(self, held: Tensor) -> None:
        self.held = held
        _MEMORY.hold(self, held)
        _TRAFFIC.peak_bytes = max(_TRAFFIC.peak_bytes, _MEMORY.held_bytes)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Compute on the CPU."""
        return _run(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if torch.is_inference_mode_enabled():  # where torch leaves it to others to take ops apart
            with self:
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return _run(func, args, kwargs or {})


class _Numbers(TorchFunctionMode):
    """Makes a copy where numbers of this process become a tensor there, or the other way round."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = dict(kwargs or {})
        if func in _FILLED_FROM_NUMBERS and _is_device(kwargs.get("device")):
            del kwargs["device"]
            return func(*args, **kwargs).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice) and not kwargs:
            return torch.tensor(args[1], dtype=args[0].dtype).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


@contextmanager
def recorded(capacity_bytes: int | None = None) -> Iterator[Traffic]:
    """Give what goes between this process and the device while the context lasts."""
    global _TRAFFIC
    before, _TRAFFIC = _TRAFFIC, Traffic(capacity_bytes=capacity_bytes)
    _TRAFFIC.peak_bytes = _MEMORY.held_bytes
    try:
        yield _TRAFFIC
    finally:
        _TRAFFIC = before


@contextmanager
def present() -> Iterator[None]:
    """Have the device there while the context lasts."""
    with _Operations(), _Numbers():
        yield


_LIBRARY = torch.library.Library("aten", "IMPL")


def _empty_strided(size: Any, stride: Any, **_: Any) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=_.get("dtype")))


# What is asked for in a backward pass, which runs in a thread that the modes below are not in.
_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")


def generator(device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator, on the CPU in place of the device."""
    return torch.Generator("cpu" if torch.device(device).type == _NAME else device)


def _is_device(device: object) -> bool:
    return device is not None and torch.device(device).type == _NAME  # type: ignore[arg-type]


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> object:
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(leaf, OnDevice) for leaf in leaves)
    asked = kwargs.get("device")
    stays = there if asked is None else _is_device(asked)
    is_pinned = bool(kwargs.get("pin_memory")) and not stays
    _count(func, args, kwargs, there)
    _check_devices(func, args, there, leaves)
    plain = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    found = func(*tree_map(_plain, args), **tree_map(_plain, plain))
    if is_pinned:
        _PINNED_TENSORS.append(found)
        _PINNED.add(found.untyped_storage().data_ptr())
    if not stays:
        return found
    made = tree_map(lambda leaf: OnDevice(leaf) if isinstance(leaf, Tensor) else leaf, found)
    most = _TRAFFIC.capacity_bytes
    if most is not None and _MEMORY.held_bytes > most:
        msg = "CUDA out of memory. (stand-in)"
        raise torch.OutOfMemoryError(msg)
    if torch.is_inference_mode_enabled():  # where torch tracks no views
        return _changed(func, args, kwargs, made)
    return return_and_correct_aliasing(func, args, kwargs, made)


def _changed(func: Any, args: Any, kwargs: dict[str, Any], made: object) -> object:
    """Return what an operation gives back: the tensor itself that it changed."""
    for given, argument in zip(args, func._schema.arguments, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return given
    return kwargs.get("out", made)


def _plain(value: object) -> object:
    if isinstance(value, OnDevice):
        return value.held
    return _CPU if isinstance(value, torch.device) else value


def _count(func: Any, args: Any, kwargs: dict[str, Any], there: bool) -> None:
    """Count a copy between the two sides, or an operation that looks at values."""
    if func is _aten._to_copy.default:
        asked = kwargs.get("device")
        if asked is not None and _is_device(asked) != there:
            _count_copy(args[0], to_device=not there, waits=not kwargs.get("non_blocking"))
    elif func is _aten.copy_.default and isinstance(args[0], OnDevice) != isinstance(
        args[1], OnDevice
    ):
        is_blocking = not (kwargs.get("non_blocking") or (args[2:] and args[2]))
        _count_copy(args[1], to_device=isinstance(args[0], OnDevice), waits=is_blocking)
    elif there:
        _count_look(func, args, kwargs)


def _count_look(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    if func in _WAITS:
        _TRAFFIC.waits[_place(func)] += _WAITS[func]
    elif func is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        _TRAFFIC.waits[_place(func)] += 1
    elif func in (_aten.index.Tensor, _aten.index_put_.default):
        if any(isinstance(i, Tensor) and i.dtype is torch.bool for i in args[1]):
            _TRAFFIC.waits[_place(func)] += 1
        if any(isinstance(i, Tensor) and not isinstance(i, OnDevice) for i in args[1]):
            _TRAFFIC.blocking[_place(func)] += 1


def _count_copy(source: Tensor, *, to_device: bool, waits: bool) -> None:
    if to_device:
        _TRAFFIC.sent_bytes += source.nbytes
    if not to_device:
        _TRAFFIC.waits[_place("copy from the device")] += 1
    elif waits or source.untyped_storage().data_ptr() not in _PINNED:
        _TRAFFIC.blocking[_place("copy to the device")] += 1
    else:
        _TRAFFIC.transfers += 1


def _check_devices(func: Any, args: Any, there: bool, leaves: list[Tensor]) -> None:
    """Refuse what a GPU refuses: numbers alone, copies and indices may come from the CPU."""
    if not there or func in (_aten.copy_.default, _aten._to_copy.default):
        return
    indexes = func in (_aten.index.Tensor, _aten.index_put_.default)
    ignored = {id(leaf) for leaf in tree_leaves(args[1])} if indexes else set()
    for leaf in leaves:
        if not isinstance(leaf, OnDevice) and leaf.ndim > 0 and id(leaf) not in ignored:
            msg = f"{_place(func)}: a tensor {tuple(leaf.shape)} lies on the CPU"
            raise MixedDevicesError(msg)


def _place(what: object) -> str:
    """Return an operation with the line of ours that it was made for."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_ROOT):
            parts = Path(file).relative_to(_ROOT).parts
            parts = parts[2:] if parts[:2] == ("src", "wardround") else parts
            if parts[0] in _PRODUCT:
                return f"{what} in {'/'.join(parts)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return str(what)
