"""What the de-identification keeps beyond PS3.15's basic profile: a declared list."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.runtime.fields import OfForm

PrivateName = Annotated[
    str,
    OfForm(
        r"^[0-9a-fA-F]{4},[^\\]{1,64},[0-9a-fA-F]{2}$",
        'group, private creator and element, e.g. "7053,Philips PET Private Group,00"',
    ),
]
# PS3.3 C.12.1.1.7 has these codes in (0012,0064); PS3.16 CID 7050 names them.
_BASIC = ("113100", "Basic Application Confidentiality Profile")
_CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
_MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
_CHARACTERISTICS = ("113108", "Retain Patient Characteristics Option")
_DEVICE = ("113109", "Retain Device Identity Option")
_SAFE_PRIVATE = ("113111", "Retain Safe Private Option")

PATIENT_CHARACTERISTICS = frozenset({"PatientSex", "PatientAge", "PatientSize", "PatientWeight"})
DEVICE_IDENTITY = frozenset(
    {"DeviceSerialNumber", "StationName", "SoftwareVersions", "GantryID", "DetectorID", "PlateID"}
)


class PrivateAttribute(NamedTuple):
    """A private attribute that the hospital knows to be safe."""

    group: int
    creator: str
    element: int


class DeidentificationOptions(BaseModel):
    """The table ``[deidentification]`` of a file of import rules.

    Attributes:
        dates: "shifted" moves all dates and times of a patient back by one keyed offset, so that
            the intervals stay; "removed" leaves none.
        patient_characteristics: Keep sex, age (90 and more as 90), size and weight: PET needs the
            weight for uptake values.
        device_identity: Keep serial number, station, software versions of the scanner.
        safe_private: Private attributes that are kept; all others go.
        burned_in_text: What happens to an image with text in its pixels: "refuse" it, "mask" the
            text, or leave all images "unchecked".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dates: Literal["shifted", "removed"] = "shifted"
    patient_characteristics: bool = False
    device_identity: bool = False
    safe_private: Annotated[tuple[PrivateName, ...], Field(max_length=100)] = ()
    burned_in_text: Literal["refuse", "mask", "unchecked"] = "refuse"

    @property
    def private_attributes(self) -> frozenset[PrivateAttribute]:
        """The private attributes that are kept."""
        return frozenset(_private_attribute(name) for name in self.safe_private)

    @property
    def kept(self) -> frozenset[str]:
        """Keywords of the attributes of PS3.15's table that stay as they are."""
        characteristics = PATIENT_CHARACTERISTICS if self.patient_characteristics else frozenset()
        return characteristics | (DEVICE_IDENTITY if self.device_identity else frozenset())

    def codes(self, pixels_cleaned: bool) -> tuple[tuple[str, str], ...]:
        """Return the codes of what was done, as (0012,0064) names them."""
        used = {
            _BASIC: True,
            _CLEAN_PIXELS: pixels_cleaned,
            _MODIFIED_DATES: self.dates == "shifted",
            _CHARACTERISTICS: self.patient_characteristics,
            _DEVICE: self.device_identity,
            _SAFE_PRIVATE: bool(self.safe_private),
        }
        return tuple(code for code, is_used in used.items() if is_used)


def _private_attribute(name: str) -> PrivateAttribute:
    group, _, rest = name.partition(",")
    creator, _, element = rest.rpartition(",")
    return PrivateAttribute(int(group, 16), creator, int(element, 16))
