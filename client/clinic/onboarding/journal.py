"""What a site has imported: a private file, so that nothing is loaded twice.

It holds keyed digests, pseudonyms and rows of the manifest, none of the hospital's identifiers.
A study counts as imported once its line is on the disk, and as listed once that was said too.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wardround.client.clinic.onboarding.deidentification.keyed_maps import IMPORT_FOLDER
from wardround.common.errors import RunError
from wardround.common.files.atomic import open_or_make
from wardround.common.files.json_lines import append_line, split_lines

JOURNAL_FILE = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class ImportedStudy:
    """A study that lies in the site folder.

    Attributes:
        study: Its keyed digest.
        patient: The patient's pseudonym.
        day: Of the study, moved as all dates of the patient; None where it has none.
        cells: Its row of the manifest, by column.
    """

    study: str
    patient: str
    day: int | None
    cells: dict[str, str]


@dataclass
class Journal:
    """The journal of a site, for the one process that imports.

    Args:
        path: The file.
        studies: By digest, in order.
        listed: Digests of those that are in the manifest.
        left_out: Of studies of an archive that were fetched in vain: of which listing and rules,
            and why.
    """

    path: Path
    studies: dict[str, ImportedStudy] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    left_out: dict[str, tuple[str, str]] = field(default_factory=dict)
    _length: int = 0
    _first_days: dict[str, int] = field(default_factory=dict)

    def add(self, study: ImportedStudy) -> None:
        """Write down that a study lies in its place, durably.

        Raises:
            RunError: It cannot be written.
        """
        self._append({"imported": asdict(study)})
        self.note(study)

    def note(self, study: ImportedStudy) -> None:
        """Take a study that is written down already."""
        self.studies[study.study] = study
        if study.day is not None:
            self._first_days.setdefault(study.patient, study.day)

    def mark_listed(self, studies: list[str]) -> None:
        """Write down that studies are in the manifest.

        Raises:
            RunError: It cannot be written.
        """
        if studies:
            self._append({"listed": studies})
            self.listed.update(studies)

    def leave_out(self, study: str, listing: str, reason: str) -> None:
        """Write down why a study of an archive is left out, so that it is not fetched again.

        Args:
            study: Its digest.
            listing: Digest of what the archive lists of it, and of the rules: another may be taken.

        Raises:
            RunError: It cannot be written.
        """
        self._append({"left out": [study, listing, reason]})
        self.left_out[study] = (listing, reason)

    def waiting(self) -> list[ImportedStudy]:
        """Return the studies whose row is not known to be in the manifest, in order."""
        return [study for key, study in self.studies.items() if key not in self.listed]

    def first_day(self, patient: str) -> int | None:
        """Return the day of the study of a patient that came first, moved as all their dates."""
        return self._first_days.get(patient)

    def _append(self, content: dict[str, object]) -> None:
        line = json.dumps(content, sort_keys=True).encode() + b"\n"
        try:
            descriptor = open_or_make(self.path, os.O_RDWR)
            try:
                os.ftruncate(descriptor, self._length)  # a torn line never counted
                append_line(descriptor, line, self._length, durable=True)
            finally:
                os.close(descriptor)
            self._length += len(line)
        except OSError as error:
            msg = f"cannot write {self.path} ({error.strerror}): make room, then import again."
            raise RunError(msg) from None


def open_journal(site_folder: Path) -> Journal:
    """Return the journal of a site.

    Raises:
        RunError: It cannot be read, or is not one.
    """
    path = site_folder / IMPORT_FOLDER / JOURNAL_FILE
    try:
        content = path.read_bytes() if path.exists() else b""
        lines, torn = split_lines(content)
        journal = Journal(path, _length=len(content) - len(torn))
        for entry in map(json.loads, lines):
            if "imported" in entry:
                journal.note(ImportedStudy(**entry["imported"]))
            elif "left out" in entry:
                study, listing, reason = entry["left out"]
                journal.left_out[study] = (listing, reason)
            else:
                journal.listed.update(entry["listed"])
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): make it readable for this account."
        raise RunError(msg) from None
    except (ValueError, TypeError, KeyError):
        msg = f"{path} is damaged: put it back from a backup of the site folder."
        raise RunError(msg) from None
    return journal
