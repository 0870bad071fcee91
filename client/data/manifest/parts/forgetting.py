"""Patients who leave a hospital's data: out of the manifest, and kept out for good.

Their rows go, and every copy that was prepared of their images. What stays is a keyed hash of
each identifier in ``parts/forgotten.jsonl``, so that a manifest that is written anew from the
hospital's systems cannot bring them back unnoticed. Their part of the privacy ledger stays too:
what was spent on them was spent.
"""

import csv
import io
import json
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.client.data.manifest.corrections import (
    MASK_FOLDER,
    case_ids,
    read_case_key,
    read_corrections,
)
from wardround.client.data.manifest.parts.written_parts import (
    KEY_BYTES,
    PARTS_FOLDER,
    WrittenParts,
    has_answered,
    parts_held,
    read_parts,
    write_parts,
)
from wardround.client.data.manifest.table import Table, read_table
from wardround.client.site.folder import Site
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError, InputError
from wardround.common.files.atomic import make_private_folder, replace_file

FORGOTTEN_FILE = "forgotten.jsonl"
_MOST_PATIENTS = 1_000_000
_LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was taken out; counts stay at the site.

    Attributes:
        patients: Who was in the manifest.
        rows: Of theirs.
        unknown: Who was not in it.
        used: Of all who were named: whoever was ever in a part here, so that a model may know them.
    """

    patients: int
    rows: int
    unknown: int
    used: int


def read_identifiers(path: Path) -> tuple[str, ...]:
    """Return the identifiers in a file, one a line, tidied as a manifest's cells are, each once.

    Raises:
        InputError: It cannot be read, or names nobody.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            msg = f"{path} is larger than {_LARGEST_BYTES >> 20} MiB: give one identifier a line."
            raise InputError(msg)
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"cannot read {path} ({reason}): give a text file with one identifier a line."
        raise InputError(msg) from None
    # As a manifest's cells are read: letters that a Mac decomposed are the same letters.
    found = tuple(dict.fromkeys(name for line in text.splitlines() if (name := tidy(line))))
    if not found or len(found) > _MOST_PATIENTS:
        msg = f"{path} names {len(found)} patients: give one identifier a line."
        raise InputError(msg)
    return found


def forget_patients(site: Site, patients: Collection[str]) -> Forgotten:
    """Take patients out of a site's lists, and remember that they are to stay out.

    Masks that readers drew of them are deleted.

    Remembered first: whatever is killed in between, the site trains on nobody who was to go.

    Raises:
        DataError: The manifest cannot be read or written.
    """
    wanted = set(map(tidy, patients))
    tables = [_require_patients(read_table(site.manifest_path))]
    if site.unlabelled_path.exists():
        tables.append(_require_patients(read_table(site.unlabelled_path)))
    _remember(site, wanted)
    known, rows = set[str](), 0
    for table in tables:
        place = table.place("patient")
        gone = [line for line in table.lines if tidy(line.cells[place or 0]) in wanted]
        if gone:
            # First: once the rows are gone nobody knows whose masks these are.
            _remove_masks(site, replace(table, lines=tuple(gone)))
            numbers = {line.row for line in gone}
            _write(table, [line.cells for line in table.lines if line.row not in numbers])
        known |= {tidy(line.cells[place or 0]) for line in gone}
        rows += len(gone)
    return Forgotten(len(known), rows, len(wanted - known), len(used_patients(site.folder, wanted)))


def used_patients(site_folder: Path, patients: Iterable[str]) -> set[str]:
    """Return those who were ever trained, validated or tested on here, forgotten ones too."""
    written = read_parts(site_folder)
    if written is None:
        return set()
    return {patient for patient in patients if written.hash_of(patient) in written.part_of}


def listed_patients(site: Site, patients: Iterable[str]) -> set[str]:
    """Return those whom a site's manifest names, in whatever wave.

    Raises:
        DataError: The manifest cannot be read.
    """
    table = _require_patients(read_table(site.manifest_path))
    place = table.place("patient") or 0
    return {tidy(line.cells[place]) for line in table.lines} & set(patients)


def forgotten_patients(site_folder: Path, patients: Iterable[str]) -> set[str]:
    """Return those who were taken out of a site's lists."""
    written, hashes = read_parts(site_folder), _read(site_folder / PARTS_FOLDER / FORGOTTEN_FILE)
    return {one for one in patients if written is not None and written.hash_of(one) in hashes}


def _require_patients(table: Table) -> Table:
    if table.place("patient") is None:
        msg = f"{table.path} has no column 'patient': nobody can be taken out of it."
        raise DataError(msg)
    return table


def _remove_masks(site: Site, gone: Table) -> None:
    """Delete what readers drew of these examinations; what they said in words has no name in it."""
    key = read_case_key(site)
    if key is None:
        return
    cases = set(case_ids(gone, key))
    drawn = [one for one in read_corrections(site.corrections_path).lines if one.column == "mask"]
    theirs = {one.new for one in drawn if one.case in cases}
    folder = site.corrections_path.with_name(MASK_FOLDER)
    try:
        for name in theirs - {one.new for one in drawn if one.case not in cases}:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot delete a corrected mask ({error.strerror}): make {folder} writable."
        raise DataError(msg) from None


def count_forgotten(site_folder: Path) -> int:
    """Return how many were taken out of a site's lists."""
    return len(_read(site_folder / PARTS_FOLDER / FORGOTTEN_FILE))


def require_nobody_forgotten(site_folder: Path, patients: Iterable[str]) -> None:
    """Refuse a manifest that has somebody who was taken out of it.

    Raises:
        DataError: It has; says how many, and nobody's name.
    """
    path = site_folder / PARTS_FOLDER / FORGOTTEN_FILE
    if not path.exists():
        return
    if read_parts(site_folder) is None:
        msg = f"{path.parent} lacks the site's key: put a copy of the folder back."
        raise DataError(msg)
    back = len(forgotten_patients(site_folder, patients))
    if back:
        msg = (
            f"the manifest names {back} of the patients who were taken out of it with 'wardround "
            "site forget-patients': take their rows out again, with the same command."
        )
        raise DataError(msg)


def _remember(site: Site, patients: Collection[str]) -> None:
    path = site.folder / PARTS_FOLDER / FORGOTTEN_FILE
    with parts_held(site.folder):
        written = read_parts(site.folder)
        if written is None:
            written = WrittenParts(secrets.token_bytes(KEY_BYTES), has_answered(site.folder))
            write_parts(site.folder, written, durable=True)
        hashes = sorted(_read(path) | {written.hash_of(patient) for patient in patients})
        try:
            make_private_folder(path.parent)
            replace_file(path, "".join(json.dumps(one) + "\n" for one in hashes))
        except OSError as error:
            msg = f"cannot write {path} ({error.strerror}): make room; nobody is forgotten yet."
            raise DataError(msg) from None


def _read(path: Path) -> set[str]:
    try:
        return {str(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, RecursionError):
        msg = f"{path} is not as the site wrote it: put a copy back. It says who is not trained on."
        raise DataError(msg) from None


def _write(table: Table, rows: list[tuple[str, ...]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=table.separator, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(rows)
    try:
        replace_file(table.path, stream.getvalue().encode())
    except OSError as error:
        msg = f"cannot write {table.path} ({error.strerror}): make it writable for this account."
        raise DataError(msg) from None
