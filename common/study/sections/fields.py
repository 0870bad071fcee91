"""What every section of a study file is made of: bounded numbers, texts, names, and its form."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from wardround.common.runtime.fields import OfForm
from wardround.common.runtime.printable import refused_texts

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
