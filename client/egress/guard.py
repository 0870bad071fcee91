"""The last gate before the network: what is not exactly a message of the study does not leave.

Default deny. A message holds the records, keys and arrays that its schema lists: no more, and of
the same shape, type and number of bytes. Every number is finite. Every word is of a closed set that
was fixed before the site read its data. Numbers that say something of the data are counts rounded
to the smallest cell, and metrics rounded to three decimals. What a schema may say stands here, what
it does say of each message in :mod:`message_schema`.

What it holds against: a defect, or a study, that would put more into a message than was agreed: an
array too many, an image in the place of a parameter, a file name in an error.

What it cannot hold against: code *installed at the site* that means to betray it. Such code can
write an image into the numbers of a parameter of the right name, shape and type, and no look at
numbers tells that from training; or it can open a connection of its own. Against that stand that
no message brings code, that only what the hospital has installed runs, and, for what a parameter
says of a patient, the noise of differential privacy.
"""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from wardround.common.errors import GuardError
from wardround.common.parameters.array_records import NPY, values_of
from wardround.common.parameters.schema import ArraySpec, Schema, written_as

_Record = ArrayRecord | ConfigRecord | MetricRecord
_CELL_ROUNDING = 1e-12  # of 0.1 + 0.2
# Bits of the exponent: where all are set, a 16-bit float is infinite or no number.
_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}


# --- What one field may hold. A type must match exactly: a subclass could compare as one thing and
# be sent as another.
@dataclass(frozen=True, slots=True)
class Exactly:
    """One value, known before the site has said anything."""

    value: str | int | float

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return type(given) is type(self.value) and given == self.value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One word of a closed set."""

    words: tuple[str, ...]

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return type(given) is str and given in self.words


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number, rounded to a multiple."""

    multiple: int = 1
    least: int = 0
    most: int = 10**9

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        if type(given) is not int:
            return False
        return self.least <= given <= self.most and given % self.multiple == 0


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number, rounded to decimals; not rounded where there are None.

    Attributes:
        decimals: Negative for tens, hundreds ...
    """

    decimals: int | None
    least: float = -1e9
    most: float = 1e9

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        if type(given) is not float or not math.isfinite(given):
            return False
        rounded = given if self.decimals is None else round(given, self.decimals)
        return self.least <= given <= self.most and rounded == given


@dataclass(frozen=True, slots=True)
class FreeText:
    """Anything written: in a simulation only."""

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        texts = given if isinstance(given, list) else [given]
        return all(isinstance(text, str) for text in texts)


@dataclass(frozen=True, slots=True)
class Empty:
    """A list of nothing."""

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return isinstance(given, list) and not given


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of a histogram: none negative, each a multiple.

    Attributes:
        multiple: 0 for any number.
    """

    multiple: float
    most: float = math.inf

    def allows(self, values: NDArray[np.generic]) -> bool:
        """Return whether an array of numbers, of any shape, may hold these."""
        numbers = values.astype(np.float64)
        if not ((numbers >= 0) & (numbers <= self.most)).all():
            return False
        if not self.multiple:
            return True
        steps = np.round(numbers / self.multiple)
        return bool((np.abs(steps * self.multiple - numbers) <= _CELL_ROUNDING).all())


@dataclass(frozen=True, slots=True)
class Rounded:
    """Numbers of an array, each rounded to decimals; any finite ones where there are None."""

    decimals: int | None
    least: float = -1e9
    most: float = 1e9

    def allows(self, values: NDArray[np.generic]) -> bool:
        """Return whether an array of numbers, of any shape, may hold these to the last bit."""
        numbers = values.astype(np.float64)
        if not ((numbers >= self.least) & (numbers <= self.most)).all():
            return False
        return self.decimals is None or bool((np.round(numbers, self.decimals) == numbers).all())


@dataclass(frozen=True, slots=True)
class Bytes:
    """Some bytes: signed, sealed or random ones of a protocol, whose length is bounded."""

    most: int

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return type(given) is bytes and len(given) <= self.most


Rule = Exactly | OneOf | Count | Number | FreeText | Empty | Bytes


@dataclass(frozen=True, slots=True)
class MessageSchema:
    """The records of one kind of message, each with its exact keys.

    Attributes:
        settings: Records of settings.
        numbers: Records of numbers.
        arrays: Records of arrays: names, shapes and types.
        optional: Records, or ``record/key``, that may be absent; all others must be there.
        cells: What the numbers of an array may be, by ``record/key``; any finite ones otherwise.
    """

    settings: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)
    arrays: Mapping[str, Schema] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    cells: Mapping[str, Cells | Rounded] = field(default_factory=dict)


def check_message(content: RecordDict, schema: MessageSchema, largest_bytes: int) -> None:
    """Check that a message holds what its schema says, and nothing else.

    Args:
        largest_bytes: Of all its arrays.

    Raises:
        GuardError: It does not. The error names places of the schema, and nothing of the content.
    """
    if type(content) is not RecordDict:
        _refuse("the message", "is not a plain content")
    expected = {*schema.settings, *schema.numbers, *schema.arrays}
    _check_keys("the message", content.keys(), expected, _lacking(schema, ""))
    for name, record in content.items():
        optional = _lacking(schema, f"{name}/")
        if name in schema.arrays:
            _check_arrays(name, record, schema.arrays[name], optional)
            _check_cells(name, record, schema)
        elif name in schema.numbers:
            _check_fields(name, record, MetricRecord, schema.numbers[name], optional)
        else:
            _check_fields(name, record, ConfigRecord, schema.settings[name], optional)
    size = sum(len(array.data) for array in _arrays(content))
    if size > largest_bytes:
        _refuse("the message", f"is larger than the {largest_bytes} bytes that the policy allows")


def _check_fields(
    name: str, record: _Record, kind: type, rules: Mapping[str, Rule], optional: Set[str]
) -> None:
    if type(record) is not kind:
        _refuse(name, f"is not a {kind.__name__}")
    _check_keys(name, record.keys(), set(rules), optional)
    for key, value in record.items():
        if not rules[key].allows(value):
            _refuse(f"{name}/{key}", f"is not {rules[key]}")


def _check_arrays(
    name: str, record: _Record, specs: Sequence[ArraySpec], optional: Set[str]
) -> None:
    if type(record) is not ArrayRecord:
        _refuse(name, "is not an ArrayRecord")
    expected = {spec.name: spec for spec in specs}
    _check_keys(name, record.keys(), set(expected), optional)
    for key, array in record.items():
        _check_array(f"{name}/{key}", array, expected[key])


def _check_cells(name: str, record: _Record, schema: MessageSchema) -> None:
    if not schema.cells or not isinstance(record, ArrayRecord):
        return
    for key, array in record.items():
        rule = schema.cells.get(f"{name}/{key}")
        values = values_of(array.data, written_as(array.dtype), tuple(array.shape))
        if rule is not None and (values is None or not rule.allows(values)):
            _refuse(f"{name}/{key}", f"is not {rule}")


def _check_array(place: str, array: Array, spec: ArraySpec) -> None:
    if not _is_plain(array) or array.stype != NPY:
        _refuse(place, "is not a plain array")
    if (array.dtype, tuple(array.shape)) != (spec.dtype, spec.shape):
        _refuse(place, f"is not {spec.dtype} {list(spec.shape)}")
    values = values_of(array.data, written_as(spec.dtype), spec.shape)
    if values is None:
        _refuse(place, f"is not written as {spec.dtype} {list(spec.shape)} is")
    if not _is_finite(values, spec.dtype):
        _refuse(place, "holds NaN or infinity")


def _is_plain(array: Array) -> bool:
    """Return whether an array is what it looks like: a subclass could compare as something else."""
    words = all(type(word) is str for word in (array.dtype, array.stype))
    numbers = all(type(length) is int for length in array.shape)
    return type(array) is Array and type(array.data) is bytes and words and numbers


def _is_finite(values: NDArray[np.generic], dtype: str) -> bool:
    if not values.size or "float" not in dtype:
        return True
    if dtype in _EXPONENTS:
        exponent = np.int16(_EXPONENTS[dtype])
        return not bool(((values.view(np.int16) & exponent) == exponent).any())
    # NaN and infinity both reach the least or the greatest value, and nothing is copied.
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _check_keys(place: str, given: Set[str], expected: Set[str], optional: Set[str]) -> None:
    if any(type(key) is not str for key in given) or not given <= expected:
        _refuse(place, "holds what the study does not imply")
    missing = expected - given - optional
    if missing:
        _refuse(place, f"lacks {', '.join(sorted(missing)[:3])}")


def _lacking(schema: MessageSchema, prefix: str) -> Set[str]:
    """Return the names below a place that may be absent."""
    return {name.removeprefix(prefix) for name in schema.optional if name.startswith(prefix)}


def _arrays(content: RecordDict) -> Iterator[Array]:
    for record in content.values():
        if isinstance(record, ArrayRecord):
            yield from record.values()


def _refuse(place: str, fault: str) -> NoReturn:
    msg = (
        f"{place} {fault}: it stays here. Find out what changed in the site's installation, and "
        "install the version of wardround that was approved."
    )
    raise GuardError(msg)
