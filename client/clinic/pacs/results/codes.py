"""Coded terms for a study's classes: SNOMED CT where the word is known, else a term of our own."""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

OWN_SCHEME = "99WARDROUND"
_LONGEST_VALUE, _LONGEST_MEANING = 16, 64  # characters, as DICOM allows


@dataclass(frozen=True, slots=True)
class Term:
    """A coded term.

    Attributes:
        scheme: "SCT" (SNOMED CT), "DCM", "UCUM" or our own.
    """

    value: str
    scheme: str
    meaning: str

    @property
    def concept(self) -> "CodedConcept":
        """The term as highdicom takes it."""
        from highdicom.sr import CodedConcept

        return CodedConcept(self.value, self.scheme, self.meaning)


ANATOMY = Term("123037004", "SCT", "Anatomical Structure")
LESION = Term("49755003", "SCT", "Morphologically Altered Structure")
TISSUE = Term("85756007", "SCT", "Tissue")
IMAGING = Term("363679005", "SCT", "Imaging procedure")
VOLUME = Term("118565006", "SCT", "Volume")
MILLILITRE = Term("ml", "UCUM", "milliliter")
NO_UNIT = Term("1", "UCUM", "no units")
PROBABILITY = Term("PROBABILITY", OWN_SCHEME, "Probability of class")
COUNT = Term("COUNT", OWN_SCHEME, "How many were found")
SCORE = Term("SCORE", OWN_SCHEME, "Score of the model, no probability")
PREDICTED = Term("PREDICTED", OWN_SCHEME, "Predicted class")

_TAKEN = tuple(one.value for one in (PROBABILITY, COUNT, SCORE, PREDICTED))

# SNOMED CT terms of CIDs 7153 to 7199 and of findings, by the word that data sets use.
_KNOWN: dict[str, tuple[Term, Term]] = {
    **{
        word: (ANATOMY, Term(value, "SCT", meaning))
        for word, value, meaning in (
            ("hippocampus", "5366008", "Hippocampus"),
            ("liver", "10200004", "Liver"),
            ("spleen", "78961009", "Spleen"),
            ("kidney", "64033007", "Kidney"),
            ("pancreas", "15776009", "Pancreas"),
            ("prostate", "41216001", "Prostate"),
            ("lung", "39607008", "Lung"),
            ("heart", "80891009", "Heart"),
            ("brain", "12738006", "Brain"),
            ("stomach", "69695003", "Stomach"),
            ("aorta", "15825003", "Aorta"),
            ("bladder", "89837001", "Urinary bladder"),
            ("gallbladder", "28231008", "Gallbladder"),
        )
    },
    **{
        word: (LESION, Term(value, "SCT", meaning))
        for word, value, meaning in (
            ("lesion", "52988006", "Lesion"),
            ("tumour", "108369006", "Neoplasm"),
            ("tumor", "108369006", "Neoplasm"),
            ("nodule", "27925004", "Nodule"),
            ("edema", "79654002", "Edema"),
            ("oedema", "79654002", "Edema"),
            ("necrosis", "6574001", "Necrosis"),
            ("cyst", "367643001", "Cyst"),
        )
    },
}


def terms_of(name: str) -> tuple[Term, Term]:
    """Return category and type of a class, by its name.

    A name that the table does not hold as a whole is a term of our own: half a match would say
    something that nobody meant ("no lesion" is no lesion).
    """
    known = _KNOWN.get(re.sub(r"[\W_]+", " ", name.casefold()).strip())
    return known or (TISSUE, own_term(name))


def own_term(name: str) -> Term:
    """Return a term of our own scheme: the name, or its hash where it is too long for a code."""
    value = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_").upper()
    if not value or len(value) > _LONGEST_VALUE or value in _TAKEN:
        value = "C" + hashlib.sha256(name.encode()).hexdigest()[:14].upper()
    return Term(value, OWN_SCHEME, label_of(name))


def label_of(name: str) -> str:
    """Return a class name as DICOM texts may hold it."""
    text = "".join(c if c.isprintable() and c != "\\" else " " for c in name).strip()
    return text[:_LONGEST_MEANING] or "class"
