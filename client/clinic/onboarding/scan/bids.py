"""BIDS: sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz, and masks in derivatives/."""

import csv
import re
from collections import defaultdict
from pathlib import Path

from wardround.client.clinic.onboarding.scan.found import Found
from wardround.common.errors import InputError

_FILE = re.compile(
    r"(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?((?:_[a-z]+-[A-Za-z0-9]+)*)"
    r"_([A-Za-z0-9]+)\.nii(\.gz)?"
)
_MASKS = ("mask", "dseg", "probseg", "roi")
_Session = tuple[str, str]


def scan_bids(folder: Path) -> Found | None:
    """Return what a BIDS folder gives, None where it is none.

    Raises:
        InputError: Several images, or several masks, could be meant.
    """
    if not any(path.is_dir() for path in folder.glob("sub-*")):
        return None
    images = _by_session(folder.glob("sub-*/anat/*.nii*"), folder.glob("sub-*/ses-*/anat/*.nii*"))
    suffixes = sorted(
        {suffix for found in images.values() for suffix in found if suffix not in _MASKS}
    )
    if not suffixes:
        msg = f"{folder} has folders sub-*, but no images sub-*/[ses-*/]anat/*.nii.gz."
        raise InputError(msg)
    several = sorted(
        {
            suffix
            for found in images.values()
            for suffix in suffixes
            if len(found.get(suffix, ())) > 1
        }
    )
    if several:
        msg = (
            f"{folder} is BIDS, and some sessions have several images {', '.join(several)} (runs, "
            "acquisitions): keep one of each in a session, or write the manifest by hand."
        )
        raise InputError(msg)
    masks, kind = _masks(folder)
    return _found(folder, images, suffixes, masks, kind)


def _found(
    folder: Path,
    images: dict[_Session, dict[str, list[Path]]],
    suffixes: list[str],
    masks: dict[_Session, Path],
    kind: str,
) -> Found:
    whole = {
        session: found for session, found in images.items() if all(s in found for s in suffixes)
    }
    single = len(suffixes) == 1
    columns = {s: "image" if single else f"image.{s.lower()}" for s in suffixes}
    people, more = _participants(folder)
    has_sessions = any(session for _, session in whole)
    rows = []
    for (subject, session), found in sorted(whole.items()):
        if masks and (subject, session) not in masks:
            continue
        row = {"patient": subject, "examination": session, **people.get(subject, {})}
        row |= {columns[s]: found[s][0].relative_to(folder).as_posix() for s in suffixes}
        if masks:
            row["mask"] = masks[(subject, session)].relative_to(folder).as_posix()
        rows.append(row)
    lacking = len(images) - len(rows)
    told = {
        "patient: the folder sub-*": True,
        **{f"{columns[s]}: anat/*_{s}.nii.gz": True for s in suffixes},
        "examination: the folder ses-*": has_sessions,
        f"mask: {kind}": bool(masks),
        f"{', '.join(more)}: participants.tsv": bool(more),
        f"left out: {lacking} sessions without an image or a mask": lacking > 0,
    }
    said = [text for text, is_so in told.items() if is_so]
    order = ["patient", *(["examination"] if has_sessions else []), *columns.values()]
    return Found("BIDS", folder, (*order, *(["mask"] if masks else []), *more), rows, tuple(said))


def _by_session(*globs: "object") -> dict[_Session, dict[str, list[Path]]]:
    found: dict[_Session, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for paths in globs:
        for path in paths:  # type: ignore[attr-defined] # generators of paths
            match = _FILE.fullmatch(path.name)
            if match:
                found[(match[1], match[2] or "")][match[4]].append(path)
    return found


def _masks(folder: Path) -> tuple[dict[_Session, Path], str]:
    """Return the mask of each session, and where they lie."""
    kinds: dict[str, dict[_Session, Path]] = defaultdict(dict)
    for path in sorted(folder.glob("derivatives/**/*.nii*")):
        match = _FILE.fullmatch(path.name)
        if match and match[4] in _MASKS:
            first = path.relative_to(folder).parts[1]
            pipeline = "" if first == match[1] else f"{first}/"
            kinds[f"derivatives/{pipeline}*{match[3]}_{match[4]}.nii.gz"][
                (match[1], match[2] or "")
            ] = path
    if len(kinds) > 1:
        msg = (
            f"{folder} has several kinds of masks: {', '.join(sorted(kinds))}. Move away all but "
            "the one that is meant."
        )
        raise InputError(msg)
    return next(((found, kind) for kind, found in kinds.items()), ({}, ""))


def _participants(folder: Path) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Return what participants.tsv says of each subject, and its columns."""
    path = folder / "participants.tsv"
    if not path.is_file():
        return {}, ()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        table = csv.DictReader(stream, delimiter="\t")
        columns = [c for c in table.fieldnames or () if c not in ("participant_id", "", "mask")]
        kept = tuple(c for c in columns if c and not c.startswith("image") and c != "patient")
        people = {
            row["participant_id"]: {c: _cell(row.get(c)) for c in kept}
            for row in table
            if row.get("participant_id")
        }
    return people, kept


def _cell(text: str | None) -> str:
    return "" if text is None or text in ("n/a", "N/A") else text
