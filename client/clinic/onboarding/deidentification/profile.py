"""What happens to each attribute: PS3.15 table E.1-1 of 2026c, and what we add to it.

The table is dicom-anonymizer's; it names what must go. Its own functions are not used: they draw
UIDs at random in one process, leave what lies in sequences that the table does not name, and write
dates of the year 1. Beyond the table, text goes too, but for a few attributes: a vendor's free text
in an attribute that the standard thinks harmless is the usual leak.
"""

import re
from functools import lru_cache
from typing import Literal, TypeAlias

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag

from wardround.common.errors import InputError, install_command

Action: TypeAlias = Literal["remove", "empty", "dummy", "uid", "keep", "date", "clean", "name"]
"""What happens to an attribute; "clean" looks into a sequence, "name" is for regions' names."""

_ACTIONS: dict[str, Action] = {
    "replace": "dummy",
    "empty": "empty",
    "delete": "remove",
    "replace_UID": "uid",
    "empty_or_replace": "dummy",
    "delete_or_empty": "empty",
    "delete_or_replace": "dummy",
    "delete_or_empty_or_replace": "dummy",
    "delete_or_empty_or_replace_UID": "clean",
}
DATES = frozenset({"DA", "TM", "DT"})
TEXTS = frozenset({"LO", "SH", "PN", "LT", "ST", "UT", "UC", "UR", "AE"})
_NUMBERS = frozenset({"FD", "FL", "US", "SS", "UL", "SL", "UV", "SV", "AT"})
_WRITTEN_NUMBERS = frozenset({"DS", "IS"})
_BYTES = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})
_REGION_NAMES = frozenset({"SegmentLabel", "ROIName"})
# Text that no table names and that reading an image or a mask needs.
_KEPT_TEXTS = frozenset(
    {
        "CodeMeaning",
        "CodeValue",
        "CodingSchemeDesignator",
        "CodingSchemeVersion",
        "ConvolutionKernel",
        "ImagedNucleus",
        "LongCodeValue",
        "Manufacturer",
        "ManufacturerModelName",
        "ModalityLUTType",
        "PulseSequenceName",
        "ReceiveCoilName",
        "RescaleType",
        "SegmentationAlgorithmName",
        "SequenceName",
        "StackID",
    }
)
_KEPT_BYTES = frozenset(
    {
        "AlphaPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "DoubleFloatPixelData",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        "FloatPixelData",
        "GreenPaletteColorLookupTableData",
        "LUTData",
        "PixelData",
        "RedPaletteColorLookupTableData",
        "SegmentedBluePaletteColorLookupTableData",
        "SegmentedGreenPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
    }
)
# Dates of the person, not of an examination: no option of PS3.15 keeps them.
_PERSON_GROUPS = (0x0010, 0x0038)
_CHARACTER_SET = 0x00080005  # the result is UTF-8 throughout
_GRAPHIC_GROUPS = (0x5000, 0x6000)  # curves and overlays: text lies in them
_FORMS = {
    "CS": re.compile(r"[A-Za-z0-9 _.\-^/+:]{0,16}"),
    "DS": re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *"),
    "IS": re.compile(r" *[+-]?\d{1,12} *"),
    "AS": re.compile(r"\d{1,3}[DWMY]?"),
    "UI": re.compile(r"[0-9.]{1,64}"),
}


@lru_cache(maxsize=1)
def _table() -> dict[tuple[int, int], Action]:
    try:
        from dicomanonymizer.simpledicomanonymizer import initialize_actions
    except ImportError:
        msg = f"the de-identification needs the package dicom-anonymizer: {install_command('pacs')}"
        raise InputError(msg) from None
    rows = initialize_actions(dicom_version="dicomfields_2026c")
    return {tag: _ACTIONS[action.__name__] for tag, action in rows.items() if len(tag) == 2}


def require_table() -> None:
    """Make sure that PS3.15's table is at hand, before anything is read.

    Raises:
        InputError: The package that has it is not installed.
    """
    _table()


@lru_cache(maxsize=8192)
def action_for(tag: int, value_representation: str, dates: str, kept: frozenset[str]) -> Action:
    """Return what happens to an attribute that is not private.

    Args:
        value_representation: As the file has it: it must be the one of the dictionary.
        dates: "shifted" or "removed".
        kept: Keywords that an option keeps.
    """
    place = BaseTag(tag)
    if (
        tag == _CHARACTER_SET
        or place.group < 8
        or _is_graphic(place.group)
        or not dictionary_has_tag(tag)
    ):
        return "remove"
    keyword, known = keyword_for_tag(tag), dictionary_VR(tag)
    # Of a data set that was never in a file, OB or OW is not settled.
    is_unsettled = value_representation == known and keyword in _KEPT_BYTES
    if value_representation not in known.split(" or ") and not is_unsettled:
        return "remove"
    if keyword in kept or is_unsettled:
        return "keep"
    return "name" if keyword in _REGION_NAMES else _listed(place, value_representation, dates)


def _listed(place: BaseTag, value_representation: str, dates: str) -> Action:
    listed = _table().get((place.group, place.elem))
    is_dated = value_representation in DATES and place.group not in _PERSON_GROUPS
    if is_dated and dates == "shifted":
        return "date"
    return listed or _beyond_the_table(keyword_for_tag(place), value_representation)


def _beyond_the_table(keyword: str, value_representation: str) -> Action:
    if value_representation == "SQ":
        return "clean"
    if value_representation == "UI":
        return "uid"
    if value_representation in TEXTS:
        return "keep" if keyword in _KEPT_TEXTS else "remove"
    if value_representation in _BYTES:
        return "keep" if keyword in _KEPT_BYTES else "remove"
    return "remove" if value_representation in DATES else "keep"


def is_well_formed(value_representation: str, value: object) -> bool:
    """Whether a value is what its representation says: a number is no place for a name."""
    if value_representation in _NUMBERS:
        return isinstance(value, int | float)
    form = _FORMS.get(value_representation)
    return form is None or value == "" or form.fullmatch(str(value)) is not None


def dummy_for(value_representation: str) -> object:
    """Return a value that is allowed there and says nothing (PS3.15 action D)."""
    if value_representation in TEXTS or value_representation == "CS":
        return "REMOVED"
    if value_representation in _NUMBERS:
        return 0
    if value_representation in _WRITTEN_NUMBERS:
        return "0"
    if value_representation in _BYTES:
        return b"\0\0"
    dummies = {"AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000"}
    return dummies.get(value_representation, "")


def _is_graphic(group: int) -> bool:
    return group & 0xFF00 in _GRAPHIC_GROUPS
