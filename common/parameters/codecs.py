"""The kinds of compression: how one long vector is written in fewer bytes, and read back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from wardround.common.errors import ModelError, StudyError, known_names
from wardround.common.parameters.quantisation import (
    ScaleBlock,
    dequantise,
    pack_nibbles,
    quantise,
    unpack_nibbles,
)
from wardround.common.parameters.schema import ArraySpec, Parameters, Schema

_INT8_LIMIT, _INT4_LIMIT = 127, 7  # symmetric: -128 and -8 have no counterpart and are refused
_SHORT_ROW = 256  # values; shorter rows share one scale a tensor
_EXACT_SHARE = 0.01  # of all values; 1-D tensors stay exact while they are no more than this


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionOptions:
    """What a kind of compression may be told.

    Attributes:
        kept_fraction: Share of the values that "top-k" sends, in (0, 1].
    """

    kept_fraction: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.kept_fraction <= 1:
            msg = (
                f"federation.kept_fraction is {self.kept_fraction}: "
                "give a share above 0 and up to 1."
            )
            raise StudyError(msg)


@dataclass(frozen=True, slots=True)
class Layout:
    """What both sides know of a network.

    Attributes:
        floating: Its floating tensors, in order; their values form one vector.
        integers: Its other tensors; their changes travel as they are.
        blocks: Runs of the vector with a scale each.
        exact: Runs of the vector that are not quantised.
    """

    floating: tuple[ArraySpec, ...]
    integers: tuple[ArraySpec, ...]
    blocks: tuple[ScaleBlock, ...]
    exact: tuple[slice, ...]

    @property
    def count(self) -> int:
        """Number of floating values."""
        return sum(size_of(spec) for spec in self.floating)

    @property
    def exact_count(self) -> int:
        """Number of values that are not quantised."""
        return sum(run.stop - run.start for run in self.exact)

    @property
    def scale_count(self) -> int:
        """Number of scales."""
        return sum(block.rows for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to write a vector: the arrays it takes, there and back."""

    arrays: Callable[[Layout, CompressionOptions], Mapping[str, tuple[int, str]]]
    write: Callable[[Tensor, Layout, CompressionOptions], Parameters]
    read: Callable[[Parameters, Layout], Tensor]


def layout_of(expected: Schema) -> Layout:
    """Return how a network's values lie in one vector: by name, whatever order they are given in.

    A site lists its network's tensors in the network's order, a server those of a file in the
    file's; both must write and read the same vector.
    """
    ordered = sorted(expected, key=lambda spec: spec.name)
    floating = tuple(spec for spec in ordered if "float" in spec.dtype)
    integers = tuple(spec for spec in ordered if "float" not in spec.dtype)
    thin = sum(size_of(spec) for spec in floating if len(spec.shape) < 2)
    keeps_thin = thin <= _EXACT_SHARE * sum(size_of(spec) for spec in floating)
    blocks, exact, offset = [], [], 0
    for spec in floating:
        size = size_of(spec)
        if len(spec.shape) < 2 and keeps_thin:
            exact.append(slice(offset, offset + size))
        elif size:
            rows = spec.shape[0] if len(spec.shape) > 1 else 1
            rows = rows if size // rows >= _SHORT_ROW else 1
            blocks.append(ScaleBlock(offset, rows, size // rows))
        offset += size
    return Layout(floating, integers, tuple(blocks), tuple(exact))


def size_of(spec: ArraySpec) -> int:
    """Return how many values a tensor has."""
    return int(torch.Size(spec.shape).numel())


def _half(dtype: torch.dtype) -> Kind:
    name, limit = str(dtype).removeprefix("torch."), torch.finfo(dtype).max

    def write(vector: Tensor, layout: Layout, options: CompressionOptions) -> Parameters:
        return {"values": vector.clamp(-limit, limit).to(dtype)}

    def read(arrays: Parameters, layout: Layout) -> Tensor:
        return arrays["values"].float()

    return Kind(lambda layout, _: {"values": (layout.count, name)}, write, read)


def _quantised(limit: int) -> Kind:
    nibbles = limit == _INT4_LIMIT

    def arrays(layout: Layout, options: CompressionOptions) -> Mapping[str, tuple[int, str]]:
        count = layout.count - layout.exact_count
        codes = (ceil(count / 2), "uint8") if nibbles else (count, "int8")
        floats = ("scales", layout.scale_count), ("exact", layout.exact_count)
        return {"codes": codes, **{name: (size, "float32") for name, size in floats}}

    def write(vector: Tensor, layout: Layout, options: CompressionOptions) -> Parameters:
        codes, scales = quantise(vector, layout.blocks, limit)
        exact = torch.cat([vector[run] for run in layout.exact] or [vector[:0]])
        return {
            "codes": pack_nibbles(codes) if nibbles else codes,
            "scales": scales,
            "exact": exact,
        }

    def read(arrays: Parameters, layout: Layout) -> Tensor:
        vector = torch.zeros(layout.count)
        if layout.blocks:
            count = layout.count - layout.exact_count
            codes = unpack_nibbles(arrays["codes"], count) if nibbles else arrays["codes"]
            dequantise(codes, arrays["scales"], layout.blocks, limit, vector)
        offset = 0
        for run in layout.exact:
            size = run.stop - run.start
            vector[run] = arrays["exact"][offset : offset + size]
            offset += size
        return vector

    return Kind(arrays, write, read)


def _top_k() -> Kind:
    def arrays(layout: Layout, options: CompressionOptions) -> Mapping[str, tuple[int, str]]:
        kept = _kept(layout, options)
        return {"places": (kept, _place_type(layout)), "values": (kept, "float32")}

    def write(vector: Tensor, layout: Layout, options: CompressionOptions) -> Parameters:
        kept, sizes = _kept(layout, options), vector.abs()
        least = sizes.topk(kept).values[-1]
        # Which of equal values go must not depend on the machine: the first ones.
        above, equal = (sizes > least).nonzero(), (sizes == least).nonzero()
        places = torch.cat([above, equal[: kept - len(above)]]).squeeze(1).sort().values
        wide = _place_type(layout) == "int64"
        return {"places": places if wide else places.int(), "values": vector[places]}

    def read(arrays: Parameters, layout: Layout) -> Tensor:
        places = arrays["places"].long()
        in_range = int(places[0]) >= 0 and int(places[-1]) < layout.count
        if not in_range or not bool((places[1:] > places[:-1]).all()):
            msg = (
                f"the places of a sparse update must rise from 0 to {layout.count - 1}: "
                "the site must send it anew."
            )
            raise ModelError(msg)
        vector = torch.zeros(layout.count)
        vector[places] = arrays["values"]
        return vector

    return Kind(arrays, write, read)


def _kept(layout: Layout, options: CompressionOptions) -> int:
    return max(1, ceil(options.kept_fraction * layout.count))


def _place_type(layout: Layout) -> str:
    return "int64" if layout.count > torch.iinfo(torch.int32).max else "int32"


KINDS: dict[str, Kind] = {
    "float16": _half(torch.float16),
    "bfloat16": _half(torch.bfloat16),
    "int8": _quantised(_INT8_LIMIT),
    "int4": _quantised(_INT4_LIMIT),
    "top-k": _top_k(),
}

COMPRESSIONS: dict[str, str] = {
    "none": "float32 as it is",
    "float16": "half the bytes; 11 significant bits",
    "bfloat16": "half the bytes; 8 significant bits, any size",
    "int8": "a quarter of the bytes",
    "int4": "an eighth of the bytes",
    "top-k": "the largest values only; 8 bytes each",
}


def kind_of(name: str) -> Kind:
    """Return a kind of compression.

    Raises:
        StudyError: None has this name.
    """
    if name not in KINDS:
        raise StudyError(known_names("compression", name, COMPRESSIONS))
    return KINDS[name]
