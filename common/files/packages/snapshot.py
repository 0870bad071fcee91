"""The files of an installed package, read once, and the hash over them.

What is hashed is what is imported: both take the bytes that were read here. So a file that changes
afterwards, a compiled copy beside it, a link, or a file that the package does not list changes
nothing of what runs.
"""

import csv
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path, PurePosixPath

from wardround.common.errors import PackageError
from wardround.common.files.packages.references import GROUPS, PACKAGE_FORM, normalised
from wardround.common.runtime.printable import printable

_MOST_FILES = 5_000
_MOST_BYTES = 64 * 2**20
_COMPILED = (".so", ".pyd", ".dll", ".dylib")
_ANEW = "install it anew, or tell its author"
_AT_START = ("sitecustomize.py", "usercustomize.py")
# How and by what it was built and installed here; another machine has others for the same code.
_OF_THE_MACHINE = frozenset(
    {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json"}
    | {"uv_cache.json", "uv_build.json"}
)


@dataclass(frozen=True)
class Snapshot:
    """A package as it was read.

    Attributes:
        package: Its name, normalised.
        root: The folder that it is installed in.
        files: The content of each file, by its path below the root.
        sha256: Over names and contents of all files, 64 hexadecimal digits.
    """

    package: str
    version: str
    root: Path
    files: Mapping[str, bytes]
    sha256: str

    @cached_property
    def modules(self) -> Mapping[str, str]:
        """The path of each module by its name; "" for a folder without ``__init__.py``."""
        found: dict[str, str] = {}
        for path in self.files:
            place = PurePosixPath(path)
            parts = place.parts[:-1]
            if place.name != "__init__.py":
                parts = (*parts, place.stem)
            if place.suffix != ".py" or not parts or not all(map(str.isidentifier, parts)):
                continue
            found[".".join(parts)] = path
            for length in range(1, len(parts)):
                found.setdefault(".".join(parts[:length]), "")
        return found

    @cached_property
    def tops(self) -> frozenset[str]:
        """The first names of its modules."""
        return frozenset(name.partition(".")[0] for name in self.modules)

    def metadata_file(self, name: str) -> str:
        """Return the text of a file of its metadata; "" where it has none."""
        for path, content in self.files.items():
            folder, _, last = path.rpartition("/")
            if folder.endswith(".dist-info") and last == name:
                return content.decode("utf-8", errors="replace")
        return ""


def read_package(package: str) -> Snapshot:
    """Read an installed package and hash it; nothing of it is imported.

    Raises:
        PackageError: It is not installed, or not in a way that a hash could stand for.
    """
    if re.fullmatch(PACKAGE_FORM, package) is None:
        msg = (
            f"{printable(package, 80)!r} is no package's name: write small letters, digits and "
            "hyphens."
        )
        raise PackageError(msg)
    try:
        found = _distribution(package)
        _refuse_editable(package, found)
        root, listed = Path(str(found.locate_file(""))), _listed(package, found)
        version = str(found.version or "of no version")
    except UnicodeDecodeError:
        msg = f"the metadata of {package} is no text in UTF-8: {_ANEW}."
        raise PackageError(msg) from None
    files: dict[str, bytes] = {}
    left = _MOST_BYTES
    for path in sorted(listed):
        files[path] = _content(package, root, path, left)
        left -= len(files[path])
    return Snapshot(package, version, root, files, _hash(package, files))


def hash_of(package: str) -> str:
    """Return the SHA-256 over the files of an installed package.

    Raises:
        PackageError: See :func:`read_package`.
    """
    return read_package(package).sha256


def is_installed(package: str) -> bool:
    """Return whether a package of this name is installed, in whatever way."""
    return any(True for _ in _all_of(package))


def registered(kind: str) -> tuple[str, ...]:
    """Return what installed packages register, as ``package:name``; nothing is imported."""
    found = set[str]()
    for package in distributions():  # what one of them has wrong hides none of the others
        points = list(_points_of(package, GROUPS[kind]))
        name = _name_of(package) if points else None
        found.update(f"{name}:{point.name}" for point in points if name)
    return tuple(sorted(found))


def install_words(package: str) -> str:
    """Return how a missing package is installed. Nothing here ever installs one."""
    return (
        f"install it from where you trust it, as 'pip install {package}' or 'pip install' with the "
        "file that its author gave you"
    )


def _all_of(package: str) -> Iterator[Distribution]:
    """Yield the distributions of a name, and those of that folder whose name cannot be read."""
    return (found for found in distributions(name=package) if _name_of(found) in (package, None))


def _name_of(found: Distribution) -> str | None:
    """Return a distribution's name; "" where it says none, None where that is no text."""
    try:
        said = found.metadata
        return normalised(str((said["Name"] if said is not None else None) or ""))
    except UnicodeDecodeError:
        return None
    except FileNotFoundError:  # so the backport importlib_metadata says that there is none
        return ""


def _points_of(found: Distribution, group: str) -> Iterator[EntryPoint]:
    try:
        yield from found.entry_points.select(group=group)
    except (UnicodeDecodeError, TypeError, ValueError):  # a line without "=", or no text at all
        return


def _distribution(package: str) -> Distribution:
    """Return the one distribution of a name; the same folder twice on the path is one."""
    by_place = {
        (os.path.realpath(str(found.locate_file(""))), found.read_text("RECORD") or ""): found
        for found in _all_of(package)
    }
    if not by_place:
        msg = f"the package {package} is not installed here: {install_words(package)}."
        raise PackageError(msg)
    if len(by_place) > 1:
        places = " and ".join(sorted({place for place, _ in by_place}))
        msg = (
            f"the package {package} is installed {len(by_place)} times ({places}), so that one "
            "hides the other: uninstall all but one."
        )
        raise PackageError(msg)
    return next(iter(by_place.values()))


def _refuse_editable(package: str, found: Distribution) -> None:
    """Refuse what runs from a folder of somebody's: its files change while it is worked on."""
    try:
        said = json.loads(found.read_text("direct_url.json") or "{}")
        editable = bool(said.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        editable = True
    if editable or "__editable__" in (found.read_text("RECORD") or ""):
        msg = (
            f"the package {package} is installed in editable mode, so that its files are not its "
            "own and no hash can stand for them: install it without '-e'."
        )
        raise PackageError(msg)


def _listed(package: str, found: Distribution) -> set[str]:
    """Return the paths that the package lists and that another machine would have too."""
    record = found.read_text("RECORD")
    if not record:
        msg = (
            f"the package {package} was installed without a list of its files (RECORD): install "
            "it with pip, from a wheel."
        )
        raise PackageError(msg)
    try:
        rows = [row[0] for row in csv.reader(record.splitlines(), strict=True) if row]
    except csv.Error:
        msg = f"the list of files (RECORD) of {package} cannot be read: install it anew."
        raise PackageError(msg) from None
    if len(rows) > _MOST_FILES:
        msg = f"the package {package} has {len(rows)} files: at most {_MOST_FILES} are hashed."
        raise PackageError(msg)
    kept = set()
    for row in rows:
        path = PurePosixPath(row.replace("\\", "/"))
        _refuse_path(package, path)
        metadata = path.parent.suffix == ".dist-info" and path.name in _OF_THE_MACHINE
        if not metadata and path.suffix != ".pyc":
            kept.add(str(path))
    return kept


def _refuse_path(package: str, path: PurePosixPath) -> None:
    shown = printable(str(path), 80)
    said = ""
    if path.is_absolute() or ".." in path.parts or not str(path).isprintable():
        said = f"lists a file outside of its folder ({shown}): leave scripts and data files out"
    elif path.suffix == ".pth" or str(path) in _AT_START:
        said = f"has {shown}, which Python would run at every start: leave it out"
    elif path.suffix in _COMPILED:
        said = f"has compiled code ({shown}), which nobody can read: use one that is Python alone"
    if said:
        msg = f"the package {package} {said}."
        raise PackageError(msg)


def _content(package: str, root: Path, path: str, left: int) -> bytes:
    """Return the content of a plain file that lies in the package's folder itself."""
    place = root / path
    try:
        linked = any((root / above).is_symlink() for above in PurePosixPath(path).parents)
        before = place.lstat()
        if linked or not stat.S_ISREG(before.st_mode):
            msg = (
                f"{printable(path, 80)} of the package {package} is a link or no plain file: "
                "install the package anew."
            )
            raise PackageError(msg)
        with place.open("rb") as stream:
            opened = os.fstat(stream.fileno())
            if (opened.st_dev, opened.st_ino) != (before.st_dev, before.st_ino):
                msg = f"{printable(path, 80)} of the package {package} is being changed: try again."
                raise PackageError(msg)
            content = stream.read(left + 1)
    except OSError as error:
        msg = (
            f"{printable(path, 80)} of the package {package} cannot be read ({error.strerror}): "
            "install the package anew."
        )
        raise PackageError(msg) from None
    if len(content) > left:
        msg = f"the package {package} has more than {_MOST_BYTES >> 20} MiB: leave data out of it."
        raise PackageError(msg)
    return content


def _hash(package: str, files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256(f"wardround package 1\n{package}\n".encode())
    for path in sorted(files):
        whole.update(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n".encode())
    return whole.hexdigest()
