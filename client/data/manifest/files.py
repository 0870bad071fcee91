"""Files that a manifest names, found as people meant them.

What is written is looked for as it stands. Where nothing is there: with backslashes as Windows
parts folders, as an address (``a%20b.png``), with letters composed or taken apart as a Mac does,
with other capitals. Where two files would do, none is taken.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from wardround.client.tasks.words import tidy
from wardround.common.files.account import this_account

State = Literal["there", "missing", "closed", "unclear", "windows"]

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_ADDRESS = re.compile(r"file:(//(localhost)?)?(?=/)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """What a cell leads to.

    Attributes:
        path: The file or folder; as it is written where nothing is there.
    """

    path: Path
    state: State

    def fault(self, column: str) -> tuple[str, str] | None:
        """Return fact and remedy where there is no file to be read; None where there is."""
        named = f"the file that the column {column} names"
        remedy = "put the files there, or mend the column or data_root of site.toml"
        account = this_account().name
        return {
            "there": None,
            "missing": (f"{named} is missing", remedy),
            "closed": (
                f"{named} may not be looked at by the account {account}",
                f"give the account {account} the right to read it and to enter its folders",
            ),
            "unclear": (
                f"{named} is there under several names that differ in capitals or signs only",
                "write the name as it stands on the disk",
            ),
            "windows": (
                f"{named} is missing: it is a path of a Windows machine",
                "write it from data_root of site.toml on, folders apart by /",
            ),
        }[self.state]


class FileFinder:
    """Finds files from one folder on; each folder is listed once at most.

    Args:
        root: Folder that relative paths start from.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, FoundFile] = {}
        self._names: dict[Path, tuple[str, ...]] = {}
        self._of_path: dict[Path, FoundFile] = {}

    def state_of(self, path: Path) -> State:
        """Return what is known of a path that was found."""
        return self._of_path[path].state

    def fault_of(self, path: Path, column: str) -> tuple[str, str] | None:
        """Return fact and remedy where a path that was found holds nothing to be read."""
        found = self._of_path.get(path)
        return None if found is None else found.fault(column)

    def find(self, text: str) -> FoundFile:
        """Return what a cell leads to."""
        if text not in self._found:
            self._found[text] = found = self._search(text)
            self._of_path[found.path] = found
        return self._found[text]

    def _search(self, text: str) -> FoundFile:
        written = self._root / text
        try:
            if written.exists():
                return FoundFile(written, "there")
            for spelling in _spellings(text):
                found = self._walk(spelling)
                if found.state != "missing":
                    return found
        except PermissionError:
            return FoundFile(written, "closed")
        except (OSError, ValueError):  # a name longer than names are
            return FoundFile(written, "missing")
        return FoundFile(written, "windows" if _DRIVE.match(text) else "missing")

    def _walk(self, text: str) -> FoundFile:
        """Follow a path from folder to folder, by names that mean the same."""
        place, path = self._root, Path(text)
        parts = path.parts
        if path.is_absolute():
            place, parts = Path(path.anchor), parts[1:]
        for part in parts:
            if part == ".." or (place / part).exists():
                place = place / part
                continue
            names = self._alike(place, part)
            if len(names) != 1:
                return FoundFile(self._root / text, "unclear" if names else "missing")
            place = place / names[0]
        return FoundFile(place, "there")

    def _alike(self, folder: Path, name: str) -> list[str]:
        """Return the names in a folder that mean the same: the same letters, or else capitals."""
        if folder not in self._names:
            try:
                self._names[folder] = tuple(entry.name for entry in folder.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = ()
        for key in (_composed, _meant):
            wanted = key(name)
            alike = [one for one in self._names[folder] if key(one) == wanted]
            if alike:
                return alike
        return []


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _meant(name: str) -> str:
    return tidy(name).casefold()


def _spellings(text: str) -> Iterator[str]:
    """Yield the ways in which a path may have been meant, each once."""
    plain = _ADDRESS.sub("", text)
    ways = [text, text.replace("\\", "/"), unquote(plain), unquote(plain).replace("\\", "/")]
    for way in dict.fromkeys(ways):
        if "\0" not in way and not _DRIVE.match(way):
            yield way
