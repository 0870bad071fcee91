"""What every section of a study file is made of: bounded numbers, texts, names, and its form."""

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import core_schema

from wardround.common.files.packages.references import PACKAGE_FORM, REFERENCE_FORM, reference_of
from wardround.common.runtime.fields import OfForm
from wardround.common.runtime.printable import printable, refused_texts

# Letters of Latin scripts (to U+017F), composed: a name must not look like another one.
NAME_LETTERS = "A-Za-zÀ-ÖØ-öø-ſ0-9"
Name = Annotated[
    str,
    OfForm(
        f"^[{NAME_LETTERS}][{NAME_LETTERS} ._-]{{0,63}}$",
        "1 to 64 Latin letters (ä, é and ł count as two), digits, blanks, dots, hyphens and "
        "underscores, beginning with a letter or a digit",
        most_bytes=64,  # as many as a certificate's common name has room for
    ),
]
# A hospital's own name may be of another alphabet, but not of two, and not of letters alone that
# Latin ones look like: in a table of sites nobody can tell such a name from another one.
_ALPHABETS = ("A-Za-zÀ-ÖØ-öø-ſ", "ΆΈ-ΊΌΎ-ΡΣ-ώ", "Ѐ-ҁҊ-ԯ", "々一-鿿ぁ-ゖァ-ヺー가-힣")
_LOOK_LATIN = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧνοАВЕЅІЈКМНОРСТУХЗаеорсухіјѕһԛԝӀӏ"  # these are meant
_SPELT = "|".join(f"[{one}0-9][{one}0-9 ._-]{{0,63}}" for one in _ALPHABETS)
SiteName = Annotated[
    str,
    OfForm(
        f"^(?![0-9 ._-]*[{_LOOK_LATIN}][{_LOOK_LATIN}0-9 ._-]*$)(?:{_SPELT})$",
        "letters of one alphabet (Latin, Greek, Cyrillic, or Chinese, Japanese and Korean signs; "
        "not only such as Latin letters look like), digits, blanks, dots, hyphens and "
        "underscores, beginning with a letter or a digit, 1 to 64 bytes long (ä, ω and д count "
        "as two, 漢 as three)",
        most_bytes=64,
    ),
]
Text = Annotated[str, StringConstraints(max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=4_096)]  # a path
Positive = Annotated[float, Field(gt=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Measured = Annotated[float, Field(ge=-1e12, le=1e12)]  # a value of a patient, or of a voxel
WholeNumber = Annotated[int, Field(ge=-(10**12), le=10**12)]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]  # pixels, or the width of a layer
Rounds = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]  # a year
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _referring(name: str) -> str:
    if reference_of(name) is None:
        msg = "is neither a known name nor written as package:name"
        raise ValueError(msg)
    return name


# What an installed package registers, as package:name.
Registered = Annotated[str, StringConstraints(max_length=129), AfterValidator(_referring)]


class OrRegistered:
    """Beside a Literal: one of its words, or what an installed package registers."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Let package:name pass; the Literal refuses whatever else it does not know."""

        def check(value: Any, known: core_schema.ValidatorFunctionWrapHandler) -> Any:
            is_other = isinstance(value, str) and reference_of(value) is not None
            return value if is_other else known(value)

        as_text = core_schema.plain_serializer_function_ser_schema(
            str, return_schema=core_schema.str_schema(), when_used="always"
        )
        return core_schema.no_info_wrap_validator_function(
            check, handler(source), serialization=as_text
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the words, or the form of the other names."""
        return {
            "anyOf": [
                handler(schema),
                {"type": "string", "pattern": REFERENCE_FORM, "maxLength": 129},
            ]
        }


PackageName = Annotated[str, OfForm(PACKAGE_FORM, "a package's name in small letters", 64)]
Hash = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]

_WORD = re.compile("[A-Za-z0-9_.+-]{1,32}")
_LARGEST_WHOLE, _LARGEST_BROKEN, _LONGEST_LIST, _DEEPEST = 65_536, 1e6, 32, 2


def _argument(value: Any, depth: int = 0) -> Any:
    """Return what a network may be told; a word is no path and no address."""
    if isinstance(value, list | tuple) and depth < _DEEPEST and len(value) <= _LONGEST_LIST:
        return tuple(_argument(one, depth + 1) for one in value)
    is_taken = (
        isinstance(value, bool)
        or (type(value) is int and abs(value) <= _LARGEST_WHOLE)
        or (type(value) is float and abs(value) <= _LARGEST_BROKEN)  # False for NaN
        or (isinstance(value, str) and _WORD.fullmatch(value) is not None)
    )
    if not is_taken:
        msg = (
            f"model.arguments takes true and false, whole numbers up to {_LARGEST_WHOLE}, numbers "
            f"up to {_LARGEST_BROKEN:g}, words of at most 32 letters, digits and _.+-, and lists "
            f"of at most {_LONGEST_LIST} of these, one list in another at most: not "
            f"{printable(repr(value), 80)}."
        )
        raise ValueError(msg)
    return value


_ARGUMENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "number", "minimum": -_LARGEST_BROKEN, "maximum": _LARGEST_BROKEN},
        {"type": "string", "pattern": f"^{_WORD.pattern}$", "maxLength": 32},
        {"type": "array", "maxItems": _LONGEST_LIST},
    ]
}
Argument = Annotated[Any, AfterValidator(_argument), WithJsonSchema(_ARGUMENT_SCHEMA)]
ArgumentName = Annotated[str, OfForm("^[a-z][a-z0-9_]{0,39}$", "an argument's name")]


class Section(BaseModel):
    """A frozen table of the study file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_forged_text(cls, content: object) -> object:
        """Look at every string, keys included, of this section and of all beneath it."""
        if found := next(refused_texts(content), ""):
            raise ValueError(found)
        return content
