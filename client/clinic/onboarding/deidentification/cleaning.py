"""One DICOM data set, rebuilt from what may stay: what no rule keeps is not in the result."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID_dictionary

from wardround.client.clinic.onboarding.deidentification.dates import (
    shift_date,
    shift_date_time,
    shift_time,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import KeyedMaps
from wardround.client.clinic.onboarding.deidentification.options import (
    DeidentificationOptions,
    PrivateAttribute,
)
from wardround.client.clinic.onboarding.deidentification.profile import (
    Action,
    action_for,
    dummy_for,
    is_well_formed,
)

_DEEPEST = 30  # sequences in sequences: a file of a thousand is an attack
_OLDEST_YEARS = 90


class TooDeepError(Exception):
    """A file nests its sequences deeper than any scanner does."""


@dataclass(frozen=True)
class Cleaning:
    """The rules for the data sets of one patient.

    Attributes:
        patient: The patient's own identifier, from which the dates' offset follows.
        region_names: Names of segments and structures that the import rules ask for; any other
            becomes REMOVED, for people write names there.
        removed: Is told of each element that does not stay as it was, for the check afterwards.
    """

    maps: KeyedMaps
    options: DeidentificationOptions
    patient: str
    region_names: frozenset[str] = frozenset()
    removed: Callable[[DataElement], None] = lambda element: None
    _private: frozenset[PrivateAttribute] = field(init=False, default=frozenset())
    _offset: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_private", self.options.private_attributes)
        object.__setattr__(self, "_offset", self.maps.offset_seconds(self.patient))

    def clean(self, dataset: Dataset, depth: int = 0) -> Dataset:
        """Return a data set, or an item of a sequence, without what names the patient.

        Raises:
            TooDeepError: Sequences lie in each other without end.
        """
        if depth > _DEEPEST:
            raise TooDeepError
        result = Dataset()
        safe = self._safe_private(dataset)
        creators = {attribute.creator for _, attribute in safe.values()}
        for element in dataset:
            kept = self._element(dataset, element, depth)
            is_safe = element.tag in safe or (
                element.tag.is_private_creator and element.value in creators
            )
            if kept is not element and not is_safe:
                self.removed(element)
            if kept is not None:
                result.add(kept)
        for element, (group, creator, offset) in safe.values():
            block = result.private_block(group, creator, create=True)
            block.add_new(offset, element.VR, element.value)
        return result

    def _element(self, dataset: Dataset, element: DataElement, depth: int) -> DataElement | None:
        tag, kind = element.tag, element.VR
        if tag.is_private:
            return None
        action = action_for(int(tag), kind, self.options.dates, self.options.kept)
        if action == "remove":
            return None
        if kind == "SQ":
            return self._sequence(element, action, depth)
        if action == "keep":
            return self._kept(element)
        value = _mapped(element.value, lambda one: self._value(dataset, element, one, action))
        return DataElement(tag, kind, value)

    def _sequence(self, element: DataElement, action: Action, depth: int) -> DataElement:
        if action not in ("clean", "keep"):
            return DataElement(element.tag, "SQ", Sequence([]))
        items = [self.clean(item, depth + 1) for item in element.value or ()]
        return DataElement(element.tag, "SQ", Sequence(items))

    def _kept(self, element: DataElement) -> DataElement | None:
        if element.keyword == "PatientAge":
            return DataElement(element.tag, "AS", _bounded_age(str(element.value or "")))
        values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
        is_empty = element.value is None or element.value == ""
        if not is_empty and not all(is_well_formed(element.VR, value) for value in values):
            return None
        return element

    def _value(self, dataset: Dataset, element: DataElement, value: Any, action: Action) -> Any:
        if action == "uid":
            return self._uid(str(value))
        if action == "date":
            return self._moved(dataset, element, str(value))
        if element.keyword in ("PatientID", "PatientName"):
            return self.maps.pseudonym(self.patient)
        if action == "name":
            name = str(value).strip()
            return name if name in self.region_names else "REMOVED"
        return "" if action == "empty" else dummy_for(element.VR)

    def _uid(self, uid: str) -> str:
        if not uid.strip(" \0"):
            return ""
        return uid if uid in UID_dictionary else self.maps.uid(uid)

    def _moved(self, dataset: Dataset, element: DataElement, text: str) -> str:
        if element.VR == "DT":
            return shift_date_time(text, self._offset)
        if element.VR == "TM":
            return shift_time(text, self._offset)
        partner = keyword_for_tag(element.tag).removesuffix("Date") + "Time"
        time = dataset.get(partner, "")
        return shift_date(text, self._offset, time if isinstance(time, str) else str(time or ""))

    def _safe_private(
        self, dataset: Dataset
    ) -> dict[BaseTag, tuple[DataElement, PrivateAttribute]]:
        """Return the private elements that the options keep; a sequence is never one of them."""
        found = {}
        for attribute in sorted(self._private):
            try:
                element = dataset.private_block(attribute.group, attribute.creator)[
                    attribute.element
                ]
            except KeyError:
                continue
            if element.VR != "SQ":
                found[element.tag] = (element, attribute)
        return found


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value, or each of several, changed; those that become empty stay in place."""
    if value is None:
        return change("") or None
    if isinstance(value, MultiValue | list):
        return [change(one) for one in value]
    return change(value)


def _bounded_age(text: str) -> str:
    digits = text.rstrip("YMWD")
    if not digits.isdecimal():
        return ""
    is_years = text.endswith("Y") or text == digits
    return f"{min(int(digits), _OLDEST_YEARS):03d}Y" if is_years else f"{int(digits):03d}{text[-1]}"
