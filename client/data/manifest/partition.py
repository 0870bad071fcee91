"""Who is trained on and who is tested on: patients, not images, and for good.

A patient's place is a keyed hash of the identifier, so that adding patients never moves another.
"""

import hashlib
from collections.abc import Sequence

from wardround.client.data.manifest.examination import SPLITS, Examination, SplitName
from wardround.common.errors import DataError
from wardround.common.study.study import Study


def patient_fraction(study_name: str, patient: str) -> float:
    """Return the patient's fixed place in [0, 1), evenly spread over patients."""
    digest = hashlib.sha256(f"{study_name}\x00{patient}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits are exact in a float


def split_of_patient(study: Study, patient: str) -> SplitName:
    """Return the split that the hash gives a patient."""
    place = patient_fraction(study.name, patient)
    if place < study.evaluation.test_fraction:
        return "test"
    if place < study.evaluation.test_fraction + study.evaluation.validation_fraction:
        return "validation"
    return "train"


def partition_patients(
    examinations: Sequence[Examination], study: Study, may_lack_patients: bool = False
) -> dict[SplitName, tuple[Examination, ...]]:
    """Return the examinations of each split: where the manifest puts them, or else the hash.

    Args:
        may_lack_patients: Whether a split that the study asks for may be empty.

    Raises:
        DataError: A split that the study asks for has no patient.
    """
    parts: dict[SplitName, list[Examination]] = {split: [] for split in SPLITS}
    for examination in examinations:
        split = examination.split or split_of_patient(study, examination.patient)
        parts[split].append(examination)
    if not may_lack_patients:
        _check_patients(parts, study, named=any(e.split for e in examinations))
    return {split: tuple(part) for split, part in parts.items()}


def _check_patients(parts: dict[SplitName, list[Examination]], study: Study, named: bool) -> None:
    evaluation = study.evaluation
    fractions: dict[SplitName, float] = {
        "train": 1 - evaluation.validation_fraction - evaluation.test_fraction,
        "validation": evaluation.validation_fraction,
        "test": evaluation.test_fraction,
    }
    patients = len({e.patient for part in parts.values() for e in part})
    for split, fraction in fractions.items():
        if parts[split] or not fraction:
            continue
        if named:
            msg = (
                f"none of the {patients} patients of the manifest is in {split}: "
                f"write {split} in the column split of some patients"
            )
        else:
            msg = (
                f"none of the {patients} patients falls into {split}, whose share is "
                f"{fraction:.0%}: add patients, or write a column split in the manifest"
            )
        if split != "train":
            msg += f", or have the study set evaluation.{split}_fraction = 0"
        msg += "."
        raise DataError(msg)
