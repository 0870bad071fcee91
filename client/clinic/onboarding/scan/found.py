"""What was found in a folder: the manifest it would give, and how each column was found."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from wardround.common.errors import InputError

_LAST_PART = re.compile(r"^(.+?)[_\-. ]+[A-Za-z]{0,8}\d{0,8}$")
_DOUBLE_SUFFIXES = (".nii.gz",)


@dataclass(frozen=True)
class Found:
    """A folder's layout.

    Attributes:
        layout: Its name, e.g. "BIDS".
        folder: The folder, from which the rows' paths start.
        columns: Of the manifest.
        rows: Its rows; of patients, for the screen of who asked.
        explanations: How each column was found, and what was left out.
    """

    layout: str
    folder: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]] = field(repr=False)
    explanations: tuple[str, ...]

    @property
    def patients(self) -> int:
        """How many patients the rows name."""
        return len({row["patient"] for row in self.rows})


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix; .nii.gz is one."""
    for suffix in _DOUBLE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder itself, sorted; what a Mac leaves beside them is none."""
    from wardround.client.data.reading.readers import has_reader

    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.is_file() and has_reader(path))


class PatientNames:
    """Who a file is of: what a pattern finds in its name, or the whole name.

    Args:
        pattern: A regular expression with one group; "" for the whole name.
    """

    def __init__(self, pattern: str) -> None:
        """Compile the pattern.

        Raises:
            InputError: It is none, or has not one group.
        """
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            msg = f"--patient {pattern!r} is no regular expression ({error.msg})."
            raise InputError(msg) from None
        if self._pattern is not None and self._pattern.groups != 1:
            msg = f"--patient {pattern!r} must have one group, e.g. '^(P[0-9]+)_': the patient."
            raise InputError(msg)

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the patient of each name.

        Raises:
            InputError: The pattern fits some names not; or there is none, and the names look as if
                several were of one patient.
        """
        names = list(names)
        if self._pattern is None:
            _refuse_shared_beginnings(names)
            return {name: name for name in names}
        found = {name: self._pattern.search(name) for name in names}
        misses = sum(1 for match in found.values() if match is None or not match[1])
        if misses:
            msg = f"--patient fits {len(names) - misses} of {len(names)} names: mend the pattern."
            raise InputError(msg)
        return {name: match[1] for name, match in found.items() if match is not None}

    @property
    def said(self) -> str:
        """How the column was found."""
        if self._pattern is None:
            return "patient: the file's name, each a patient of its own"
        return "patient: what --patient finds in the file's name"


def _refuse_shared_beginnings(names: list[str]) -> None:
    """Refuse P001_1 and P001_2 beside P002_1: one patient would be trained on and tested on."""
    beginnings = Counter(match[1] for match in map(_LAST_PART.match, names) if match)
    several = sum(1 for count in beginnings.values() if count > 1)
    if several and len(beginnings) > 1:
        msg = (
            f"{len(names)} files have {len(beginnings)} beginnings of names; {several} of these "
            "begin several files: they may be several images of one patient. Say which part of a "
            "name is the patient: --patient '^([^_]+)_'; or, if each file is another patient's, "
            "--patient '^(.+)$'."
        )
        raise InputError(msg)


def grouped(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Return paths by their names without suffix."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[stem_of(path)].append(path)
    return dict(groups)
