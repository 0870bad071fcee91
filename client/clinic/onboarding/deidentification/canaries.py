"""The check after a de-identification: nothing of what was removed is anywhere in the result.

It knows nothing of the rules that removed it: it looks in the file as it will lie on the disk. A
name, an identifier, a date or a text that is found refuses the file, whichever rule let it pass.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID_dictionary

from wardround.client.clinic.onboarding.deidentification.profile import DATES, TEXTS

# Who has these knows the patient: they are looked for as parts of any text.
_IDENTIFIERS = re.compile(
    r"(Patient|Person|Admission|ServiceEpisode|Encounter|Subject)\w*ID|\w*PatientIDs"
    r"|AccessionNumber|StudyID|MedicalRecord\w*|InsurancePlan\w*|\w*(Telephone|Address|Telecom)\w*|MilitaryRank"
)
_SHORTEST_PART = 3  # signs; two letters stand in every text
_SHORTEST_FOREIGN = 2  # a given name in Chinese has two
_SHORTEST_TEXT = 12  # "HEAD" is also a body part, "SIEMENS" also a manufacturer
_SHORTEST_BYTES = 8  # in pixels, fewer letters come together by chance
_SHORTEST_NUMBER = 6  # digits: "161" is also the number of a slice
_LARGE_BYTES = 4096


@dataclass
class Canaries:
    """What was removed from one file.

    Attributes:
        parts: Words of names, identifiers: looked for inside any text, whatever its capitals.
        texts: Whole texts.
        uids: UIDs.
        dates: Days, as people write them.
        digits: Of identifiers: "MRN-887766" is also written 887766.
    """

    parts: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)
    dates: set[str] = field(default_factory=set)
    digits: set[str] = field(default_factory=set)

    def add(self, element: DataElement) -> None:
        """Note an element that did not stay as it was."""
        if element.keyword == "SpecificCharacterSet":
            return  # replaced by UTF-8, which it may have been
        for value in _values(element):
            self._note(element, value)

    def _note(self, element: DataElement, value: object) -> None:
        text, kind = _folded(value), element.VR
        if not text:
            return
        if kind == "UI":
            self.uids.update({text} - UID_dictionary.keys())
        elif kind in ("DA", "DT"):
            self.dates.update(_written_dates(text))
        elif kind == "PN":
            words = re.split(r"[\s^=,;_.]+", text)
            self.parts.update(word for word in words if _is_long_enough(word))
        elif _IDENTIFIERS.fullmatch(element.keyword):
            self.parts.update({text} if len(text) >= _SHORTEST_PART else ())
            self.digits.update(re.findall(r"\d{5,}", text))
        elif (kind in TEXTS or kind in ("CS", "OB", "UN")) and _is_telling(text):
            self.texts.add(text)


def _written_dates(text: str) -> set[str]:
    """Return a DA or DT as people write its day."""
    found = re.match(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})", text)
    if found is None:
        return set()
    year, month, day = found.groups()
    orders = ((year, month, day), (day, month, year), (month, day, year))
    return {sign.join(parts) for parts in orders for sign in ("", "-", ".", "/")}


def _is_long_enough(word: str) -> bool:
    return len(word) >= (_SHORTEST_PART if word.isascii() else _SHORTEST_FOREIGN)


def _is_telling(text: str) -> bool:
    return len(text) >= _SHORTEST_TEXT or (" " in text and len(text) >= _SHORTEST_BYTES)


def scrub_texts(canaries: Canaries, dataset: Dataset) -> None:
    """Replace texts that say what was removed elsewhere: a code's meaning may repeat a description.

    What was found in anything but a text refuses the file.
    """
    for element in _elements(dataset):
        if element.VR in TEXTS and _in_element(canaries, element):
            element.value = "REMOVED"


def find_canary(canaries: Canaries, dataset: Dataset, content: bytes) -> str | None:
    """Return what kind of removed value is still there, None where there is none.

    Args:
        dataset: The result, read again from the bytes.
        content: The result's bytes.
    """
    for element in _elements(dataset):
        kind = _in_element(canaries, element)
        if kind:
            return kind
    folded = content.lower()
    words = canaries.parts | canaries.texts | canaries.uids
    looked_for = [w for w in words if len(w) >= _SHORTEST_BYTES and not w.isdecimal()]
    if any(code in folded for word in looked_for for code in _encodings(word)):
        return "a text"
    return None


def _in_element(canaries: Canaries, element: DataElement) -> str | None:
    for text in filter(None, map(_folded, _values(element))):
        found = _in_value(canaries, element.VR, text)
        if found:
            return found
    return None


def _in_value(canaries: Canaries, kind: str, text: str) -> str | None:
    if kind in TEXTS:
        if any(part in text for part in canaries.parts | canaries.texts | canaries.digits):
            return "a name, an identifier or a text"
        return "a date" if any(date in text for date in canaries.dates) else None
    if kind == "UI":
        return "a UID" if text in canaries.uids else None
    if kind == "CS" and _words_of(text) & (canaries.parts | canaries.digits):
        return "a name or an identifier"
    is_short_number = text.isdecimal() and len(text) < _SHORTEST_NUMBER
    if kind not in DATES and text in canaries.parts and not is_short_number:
        return "a name or an identifier"
    return None


def _words_of(text: str) -> set[str]:
    words = re.split(r"[\W_]+", text)
    return {w for w in words if not w.isdecimal() or len(w) >= _SHORTEST_NUMBER}


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _elements(item)
        else:
            yield element


def _values(element: DataElement) -> Iterable[Any]:
    value = element.value
    if value is None or element.VR == "SQ":
        return ()
    return value if isinstance(value, MultiValue | list) else (value,)


def _folded(value: object) -> str:
    if isinstance(value, bytes):
        if len(value) > _LARGE_BYTES:
            return ""  # pixels and tables; the bytes of the file are looked through as a whole
        value = value.decode("utf-8", "replace")
    return str(value).strip(" \0\r\n\t").casefold()


def _encodings(word: str) -> Iterator[bytes]:
    for name in ("utf-8", "latin-1", "utf-16-le"):
        try:
            yield word.encode(name)
        except UnicodeEncodeError:
            continue
