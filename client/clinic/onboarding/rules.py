"""``import.toml``: which series become images, and where labels and masks come from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wardround.client.clinic.onboarding.deidentification.options import DeidentificationOptions
from wardround.common.errors import InputError, nearest
from wardround.common.files.validated_toml import read_toml
from wardround.common.runtime.fields import OfForm

Word = Annotated[str, Field(min_length=1, max_length=200)]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
ColumnName = Annotated[
    str, OfForm(r"^[A-Za-z][A-Za-z0-9_.]{0,60}$", "a letter, then letters, digits, _ or .")
]
ChannelName = Annotated[
    str, OfForm(r"^[a-z][a-z0-9_]{0,30}$", "a small letter, then small letters, digits or _")
]


def _listed(given: object) -> object:
    return (given,) if isinstance(given, str) else given


Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_listed)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_listed)]
Day = Annotated[str, OfForm(r"^\d{8}$", "a day as YYYYMMDD")]
Code = Annotated[
    str, OfForm(r"^[^:\\]{1,16}:[^\\]{1,64}$", 'a scheme and a code, e.g. "SCT:39607008"')
]
RESERVED_COLUMNS = ("patient", "examination", "image", "mask", "split", "scanner", "site")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StudyRule(_Table):
    """Which studies are looked at. A picture archive is asked for these; a folder is sifted.

    Attributes:
        description: Patterns (``*``, ``?``, capitals ignored); one must fit. Empty takes all.
        date_from: First day.
        date_to: Last day.
    """

    description: Patterns = ()
    date_from: Day | Literal[""] = ""
    date_to: Day | Literal[""] = ""


class ChannelRule(_Table):
    """Which series of a study becomes a channel of the image.

    Attributes:
        name: Of the channel: the manifest's column is ``image.NAME``, or ``image`` for "image".
        modality: E.g. "MR"; empty takes any.
        description: Patterns; one must fit the series description or the protocol's name.
        not_description: Patterns; none may.
        body_part: Patterns for the body part examined; one must fit.
        slice_thickness: From and to, in millimetres.
        minimum_images: A series of fewer files or frames is left out.
        exclude_image_types: Words of the image type, e.g. LOCALIZER and DERIVED.
        choose: Which of several series that fit: "only" leaves the study out then.
        required: Whether a study without it is left out.
    """

    name: ChannelName = "image"
    modality: Annotated[str, Field(max_length=16)] = ""
    description: Patterns = ()
    not_description: Patterns = ()
    body_part: Patterns = ()
    slice_thickness: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] | None = (
        None
    )
    minimum_images: Annotated[int, Field(ge=1)] = 1
    exclude_image_types: Words = ("LOCALIZER",)
    choose: Literal["newest", "oldest", "largest", "only"] = "newest"
    required: bool = True

    @property
    def column(self) -> str:
        """The manifest's column."""
        return "image" if self.name == "image" else f"image.{self.name}"


class TableLabels(_Table):
    """Labels from a table of the hospital. Its identifiers are compared here and written nowhere.

    Attributes:
        file: A CSV file, from the folder of the rules.
        by: What identifies a study in it.
        key: The column that holds that.
        columns: From a column of the manifest to the table's.
    """

    file: Word
    by: Literal["patient", "accession", "study"]
    key: Word
    columns: Annotated[dict[ColumnName, Word], Field(min_length=1)]


class ReportLabels(_Table):
    """A label from words in a text: an attribute of DICOM, or a column of a table.

    Negation is not understood: "no pneumonia" has the word.

    Attributes:
        attribute: Keyword of a DICOM attribute, e.g. "StudyDescription"; or, instead:
        table_column: A column of the table of ``[labels.table]``.
        column: Of the manifest.
        words: From a label to patterns (regular expressions, capitals ignored).
        otherwise: The label where none fits; empty gives none.
    """

    attribute: Word | Literal[""] = ""
    table_column: Word | Literal[""] = ""
    column: ColumnName = "label"
    words: Annotated[dict[Word, Words], Field(min_length=1)]
    otherwise: Annotated[str, Field(max_length=200)] = ""


class StructuredReportLabels(_Table):
    """Labels from structured reports (TID 1500): coded findings and measurements, no free text.

    Attributes:
        columns: From a column of the manifest to the concept, e.g. ``label = "DCM:121071"``.
        values: What a code is called, e.g. ``"SCT:233604007" = "pneumonia"``.
    """

    columns: Annotated[dict[ColumnName, Code], Field(min_length=1)]
    values: dict[Code, Word] = Field(default_factory=dict)


class MaskRule(_Table):
    """Masks from DICOM segmentations (SEG) and structure sets (RTSTRUCT) of the study.

    Attributes:
        names: Names of segments or structures that keep their name; one must be there.
        channel: The channel whose series they must refer to; the first if empty.
    """

    names: Annotated[Words, Field(min_length=1)]
    channel: ChannelName | Literal[""] = ""


class LabelRules(_Table):
    """Where labels come from; nothing gives a manifest without.

    Attributes:
        missing: A study without one is left out, or kept with an empty cell.
    """

    table: TableLabels | None = None
    report: ReportLabels | None = None
    structured_report: StructuredReportLabels | None = None
    masks: MaskRule | None = None
    missing: Literal["leave out", "keep"] = "leave out"


class ImportLimits(_Table):
    """How much is taken; what a folder or an archive holds may be wrong.

    Attributes:
        files: In the folder.
        file_megabytes: Of one file; a larger one is left out.
        studies: Of one import.
        free_gigabytes: That stay free on the site's disk.
    """

    files: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    file_megabytes: Annotated[int, Field(ge=1, le=65_536)] = 2_048
    studies: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    free_gigabytes: Annotated[float, Field(ge=0)] = 1.0


class ImportRules(_Table):
    """The content of ``import.toml``.

    Attributes:
        dimensions: 3 for volumes: a series is one; 2 for pictures: a series has one image.
        channels: One rule a channel.
    """

    dimensions: Literal[2, 3] = 3
    channels: Annotated[tuple[ChannelRule, ...], Field(min_length=1, max_length=32)]
    study: StudyRule = StudyRule()
    labels: LabelRules = LabelRules()
    deidentification: DeidentificationOptions = DeidentificationOptions()
    limits: ImportLimits = ImportLimits()

    @model_validator(mode="after")
    def _check(self) -> "ImportRules":
        names = [channel.name for channel in self.channels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"channels has two of the name {twice[0]!r}: rename one."
            raise ValueError(msg)
        if "image" in names and len(names) > 1:
            msg = "a channel of several needs a name of its own: rename the one called 'image'."
            raise ValueError(msg)
        _check_labels(self, names)
        return self

    @property
    def image_columns(self) -> tuple[str, ...]:
        """The manifest's columns of images."""
        return tuple(channel.column for channel in self.channels)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The manifest's columns of labels, those of masks last."""
        labels = self.labels
        named = [
            *(labels.table.columns if labels.table else ()),
            *((labels.report.column,) if labels.report else ()),
            *(labels.structured_report.columns if labels.structured_report else ()),
            *(("mask",) if labels.masks else ()),
        ]
        return tuple(dict.fromkeys(named))


def _check_labels(rules: ImportRules, channels: list[str]) -> None:
    labels = rules.labels
    named = [
        *(labels.table.columns if labels.table else ()),
        *((labels.report.column,) if labels.report else ()),
        *(labels.structured_report.columns if labels.structured_report else ()),
    ]
    for name in named:
        if name in RESERVED_COLUMNS or name.startswith("image."):
            msg = f"labels cannot fill the column {name!r}: it has a meaning of its own."
            raise ValueError(msg)
        if named.count(name) > 1:
            msg = f"the column {name!r} is filled by two tables of [labels]: keep one."
            raise ValueError(msg)
    report, masks = labels.report, labels.masks
    if report and bool(report.attribute) == bool(report.table_column):
        msg = "labels.report needs one of attribute and table_column: it says where the text is."
        raise ValueError(msg)
    if report and report.attribute:
        _check_keyword(report.attribute)
    if report and report.table_column and labels.table is None:
        msg = "labels.report.table_column needs [labels.table], which says which table."
        raise ValueError(msg)
    if masks and masks.channel and masks.channel not in channels:
        msg = f"labels.masks.channel = {masks.channel!r} is no channel: {', '.join(channels)}."
        raise ValueError(msg)


def _check_keyword(name: str) -> None:
    from pydicom.datadict import keyword_dict

    if name not in keyword_dict:
        close = nearest(name, keyword_dict)
        hint = f"did you mean {close!r}?" if close else "write its keyword, e.g. StudyDescription."
        msg = f"labels.report.attribute = {name!r} is no attribute of DICOM: {hint}"
        raise ValueError(msg)


def read_rules(path: Path) -> ImportRules:
    """Read a file of import rules.

    Raises:
        InputError: There is none, or it says something that cannot be.
    """
    absent = (
        f"there are no import rules {path}: write a file with a table [[channels]] for each series "
        "that a study must have."
    )
    return read_toml(path, ImportRules, InputError, absent)
