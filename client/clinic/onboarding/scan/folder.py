"""Which layout a folder has: each is tried, and two that fit are refused."""

from pathlib import Path

from wardround.client.clinic.onboarding.scan.bids import scan_bids
from wardround.client.clinic.onboarding.scan.found import Found, PatientNames
from wardround.client.clinic.onboarding.scan.listed_sets import scan_decathlon, scan_nnunet
from wardround.client.clinic.onboarding.scan.named_files import scan_classes, scan_pairs
from wardround.common.errors import InputError

_KNOWN = (
    "BIDS (sub-*/anat), nnU-Net or Decathlon (dataset.json), a folder a class, images/ and masks/, "
    "or files with the suffix _mask"
)


def scan_folder(folder: Path, patient: str = "") -> Found:
    """Return the manifest that a folder would give.

    Args:
        patient: Pattern whose one group is the patient in a file's name; "" for the whole name.
            BIDS says itself who is who.

    Raises:
        InputError: It has no layout that is known, or more than one.
    """
    if not folder.is_dir():
        msg = f"{folder} is not a folder: name the one that holds the data set."
        raise InputError(msg)
    names = PatientNames(patient)
    try:
        found = _layouts(folder, names)
    except OSError as error:
        msg = f"cannot read {folder} ({error.strerror}): make it readable for this account."
        raise InputError(msg) from None
    if len(found) > 1:
        msg = (
            f"{folder} may be {' or '.join(one.layout for one in found)}: name the folder inside "
            "it, or move away what does not belong to the data set."
        )
        raise InputError(msg)
    if not found or not found[0].rows:
        msg = (
            f"{folder} has no layout that is known: {_KNOWN}. DICOM is imported by rules: "
            "wardround site import FOLDER --rules import.toml SITE."
        )
        raise InputError(msg)
    return found[0]


def _layouts(folder: Path, names: PatientNames) -> list[Found]:
    """Return each layout that fits; a dataset.json or BIDS's folders leave no doubt."""
    bids = scan_bids(folder)
    listed = scan_nnunet(folder, names) or scan_decathlon(folder, names)
    said = [one for one in (bids, listed) if one is not None]
    if said:
        return said
    named = scan_pairs(folder, names) or scan_classes(folder, names)
    return [] if named is None else [named]
