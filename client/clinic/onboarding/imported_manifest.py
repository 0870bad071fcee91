"""The manifest of a site as an import writes it: whole or not at all, new rows at its end."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wardround.client.clinic.onboarding.journal import Journal
from wardround.client.clinic.onboarding.rules import ImportRules
from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import BY_UMASK, replace_file

Cells = dict[str, str]


def manifest_columns(rules: ImportRules) -> tuple[str, ...]:
    """Return the columns that an import writes."""
    return ("patient", "examination", *rules.image_columns, *rules.label_columns)


def check_manifest(path: Path, columns: Sequence[str]) -> None:
    """Refuse a manifest of other columns before anything is imported.

    Raises:
        InputError: It has others, or cannot be read.
    """
    lines = _read(path)
    if lines and tuple(lines[0]) != tuple(columns):
        msg = (
            f"the manifest {path} has the columns {', '.join(lines[0])}, and these rules write "
            f"{', '.join(columns)}: change the rules, or set another manifest in site.toml."
        )
        raise InputError(msg)


def append_waiting(path: Path, columns: Sequence[str], journal: Journal) -> int:
    """Write the rows of imported studies that are not in the manifest yet; return how many.

    A row that the hospital has taken out since does not come back.

    Raises:
        RunError: The manifest cannot be written; the old one stays.
    """
    waiting = journal.waiting()
    if not waiting:
        return 0
    lines = _read(path) or [list(columns)]
    present = {tuple(line) for line in lines[1:]}
    new = [[study.cells.get(column, "") for column in columns] for study in waiting]
    new = [line for line in new if tuple(line) not in present]
    if new:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([*lines, *new])
        try:
            replace_file(path, stream.getvalue(), BY_UMASK)
        except OSError as error:
            msg = f"cannot write {path} ({error.strerror}): make room, then import again."
            raise RunError(msg) from None
    journal.mark_listed([study.study for study in waiting])
    return len(new)


def _read(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [line for line in csv.reader(stream) if any(line)]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error):
        msg = f"the manifest {path} cannot be read: save it as a comma-separated file in UTF-8."
        raise InputError(msg) from None
