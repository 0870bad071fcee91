"""The one place where the texts and numbers of a message are read, each checked once.

The other side may send anything in any field: infinity for a number of patients, a list for a word,
a word that moves the cursor of whoever reads a log. What is returned here is of the right type,
finite, and within bounds, so that nobody later has to ask again.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import normalize

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import PydanticCustomError, core_schema

from wardround.common.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Facts = TypeVar("Facts", bound="DataclassInstance")
LARGEST_COUNT = 2**31 - 1  # of rounds, steps and examinations; a float64 sum of them is exact
LARGEST_NUMBER = 1e100  # finite, and so is its square, and a sum over all sites
LARGEST_SECONDS = 1e9  # 31 years
LONGEST_TEXT = 200  # characters of a name, a version or a digest
LONGEST_REASON = 500  # characters of what the other side gives as a reason
_SHOWN_VALUE = 40  # characters of a bad value that an error repeats
_SCALARS = (bool, int, float, str)


class FieldError(InputError):
    """A field of a message is missing, or is not what it must be."""


class Fields:
    """One record of a message, whose fields are read by name and by what they must be."""

    def __init__(self, fields: Mapping[str, object] | None, name: str) -> None:
        """Look at a record.

        Args:
            fields: The record; None where the message has none of this name.
            name: What errors call it.

        Raises:
            FieldError: It is missing.
        """
        if fields is None:
            msg = f"{name} is missing"
            raise FieldError(msg)
        self._fields, self._name = fields, name

    def text(
        self, key: str, *, default: str | None = None, longest: int = LONGEST_TEXT, least: int = 0
    ) -> str:
        """Return a text of printable characters.

        Args:
            default: Where the field is absent; None if it must be there.
            longest: Most characters.
            least: Fewest characters.

        Raises:
            FieldError: It is missing or something else.
        """
        value = self._value(key, default)
        if not (isinstance(value, str) and least <= len(value) <= longest and value.isprintable()):
            raise self._refused(key, value, f"a printable text of {least} to {longest} characters")
        return value

    def texts(self, key: str, *, most: int = 1000) -> tuple[str, ...]:
        """Return a list of printable texts, each of :data:`LONGEST_REASON` characters or fewer.

        Args:
            most: Longest list.

        Raises:
            FieldError: It is missing or something else.
        """
        value = self._value(key, None)
        if not isinstance(value, list) or len(value) > most:
            raise self._refused(key, value, f"a list of at most {most} texts")
        rows = Fields({f"{key}, entry {n}": text for n, text in enumerate(value)}, self._name)
        return tuple(rows.text(name, longest=LONGEST_REASON) for name in rows._fields)

    def match(self, key: str, pattern: re.Pattern[str], described: str) -> str:
        """Return a text that is of a pattern, e.g. the name of a run.

        Args:
            described: The pattern in words.

        Raises:
            FieldError: It is missing or something else.
        """
        value = self._value(key, None)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._refused(key, value, described)
        return value

    def whole(
        self, key: str, *, default: int | None = None, least: int = 0, most: int = LARGEST_COUNT
    ) -> int:
        """Return a whole number within bounds, both included; a float is none, nor is a flag.

        Args:
            default: Where the field is absent; None if it must be there.

        Raises:
            FieldError: It is missing or something else.
        """
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._refused(key, value, f"a whole number from {least} to {most}")
        return value

    def number(
        self,
        key: str,
        *,
        default: float | None = None,
        least: float = -LARGEST_NUMBER,
        most: float = LARGEST_NUMBER,
    ) -> float:
        """Return a finite number within bounds, both included.

        Args:
            default: Where the field is absent, which need not be finite; None if it must be there.

        Raises:
            FieldError: It is missing or something else.
        """
        if default is not None and key not in self._fields:
            return default
        value = self._value(key, None)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # No infinity and no NaN is between two bounds.
        if not is_number or not least <= value <= most:  # type: ignore[operator] # a number
            raise self._refused(key, value, f"a finite number from {least:g} to {most:g}")
        return float(value)  # type: ignore[arg-type] # a number within bounds

    def flag(self, key: str) -> bool:
        """Return whether something is so.

        Raises:
            FieldError: It is missing or something else.
        """
        value = self._value(key, None)
        if not isinstance(value, bool):
            raise self._refused(key, value, "true or false")
        return value

    def _value(self, key: str, default: object) -> object:
        value = self._fields.get(key, default)
        if value is None:
            msg = f"{self._name}/{key} is missing"
            raise FieldError(msg)
        return value

    def _refused(self, key: str, value: object, wanted: str) -> FieldError:
        return FieldError(f"{self._name}/{key} is {_shown(value)}, not {wanted}")


@dataclass(frozen=True, slots=True)
class OfForm:
    """What a text must look like, as an annotation; an error says it in words.

    A regular expression is for programs: whoever typed a name wants to know what it may hold.

    Attributes:
        pattern: What the whole text must match; it stands in the JSON Schema.
        words: The same in words, e.g. "64 hexadecimal digits".
        most_bytes: Of the text in UTF-8, where a letter may take two.
    """

    pattern: str
    words: str
    most_bytes: int = 1_000_000

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Check a text after all else was checked."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Say the pattern in a JSON Schema."""
        return {**handler(schema), "pattern": self.pattern}

    def _check(self, written: str) -> str:
        text = normalize("NFC", written)  # an accent that is a sign of its own joins its letter
        if not re.fullmatch(self.pattern, text) or len(text.encode()) > self.most_bytes:
            kind, sentence = "of_form", "it must be {words}"
            raise PydanticCustomError(kind, sentence, {"words": self.words})
        return text


def plain(text: object, longest: int = LONGEST_REASON) -> str:
    """Return the other side's words on one line, without what moves a cursor, and not endless.

    Args:
        longest: Characters that are kept.
    """
    return "".join(c if c.isprintable() else "?" for c in str(text)[:longest])


def _shown(value: object) -> str:
    """Return a bad value for an error: short, and in ASCII."""
    if isinstance(value, int) and abs(value) > 2**64:
        return "a number of more than 64 bits"  # Python refuses to write very long ones
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if not isinstance(value, _SCALARS):
        return f"a {type(value).__name__}"
    cut = value[:_SHOWN_VALUE] if isinstance(value, str) else value
    return ascii(cut)


def of_its_types(facts: Facts) -> Facts:
    """Return a dataclass that was made of somebody's JSON, once every field is of its type.

    Raises:
        ValueError: One is not.
    """
    checked: Facts = _adapter(type(facts)).validate_python(asdict(facts))
    return checked


@cache  # it takes longer to make than a thousand facts to look at
def _adapter(kind: type[Facts]) -> TypeAdapter[Facts]:
    return TypeAdapter(kind)
