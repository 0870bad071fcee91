"""One file that holds a folder as it was: written while its owner works on, checked when read.

It is an uncompressed tar archive, readable by its owner alone. Its last entry, ``backup.json``,
says what was backed up, when, and the SHA-256 of each file: a backup that was cut off has none.
"""

import hashlib
import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import BinaryIO, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import (
    BY_UMASK,
    OWNER_ONLY,
    flush,
    keep_owner_of_folder,
    make_folder,
    make_private_folder,
    put_in_place,
    replace_file,
    write_new,
)

_LAST = "backup.json"
_LARGEST_LAST = 64 * 2**20  # bytes; a server with a hundred thousand files has 20 MB
_CHUNK = 2**20


class _Contents(BaseModel):
    """What the last entry says.

    Attributes:
        kind: What was backed up.
        written: When it was begun, seconds since 1970.
        files: The SHA-256 of each file, by its path in the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    kind: Literal["server", "site"]
    wardround: str
    written: float
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself.

    Attributes:
        version: Of wardround, that wrote it.
        files: How many.
    """

    version: str
    written: datetime
    files: int


class BackupWriter:
    """Adds files to a backup; a file that is appended to meanwhile is taken as it is now."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self.hashes: dict[str, str] = {}

    def add(self, path: Path, name: str) -> bool:
        """Add a file under its path in the folder; return False where it is there no longer.

        Raises:
            OSError: It cannot be read, or the backup cannot be written.
        """
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return False
        with stream:
            entry = self._archive.gettarinfo(arcname=name, fileobj=stream)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            read = _Hashing(stream, entry.size)
            self._archive.addfile(entry, cast("BinaryIO", read))
        self.hashes[name] = read.digest()
        return True

    def add_tree(self, folder: Path, name: str, wanted: Callable[[Path], bool]) -> None:
        """Add all files below a folder that are wanted; links are left out."""
        for place, _, names in os.walk(folder):  # folders may come and go meanwhile
            for path in (Path(place) / one for one in sorted(names)):
                if path.is_file() and not path.is_symlink() and wanted(path):
                    self.add(path, f"{name}/{path.relative_to(folder).as_posix()}")


class _Hashing:
    """Reads so many bytes of a file, and hashes them."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left, self._hash = stream, size, hashlib.sha256()

    def read(self, wanted: int) -> bytes:
        content = self._stream.read(min(wanted, self._left))
        self._left -= len(content)
        self._hash.update(content)
        return content

    def digest(self) -> str:
        return self._hash.hexdigest()


def write_backup(
    file: Path, kind: Literal["server", "site"], version: str, fill: Callable[[BackupWriter], None]
) -> int:
    """Write a backup, whole or not at all; return how many files it holds.

    Args:
        fill: Adds what belongs to it.

    Raises:
        InputError: A file of that name is there, or no folder for it.
        RunError: It cannot be written, or something cannot be read.
    """
    if file.exists():
        msg = f"{file} is there already: give another name, e.g. one with the date."
        raise InputError(msg)
    count, begun = 0, time.time()

    def write(part: Path) -> None:
        nonlocal count
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
            writer = BackupWriter(archive)
            fill(writer)
            contents = _Contents(kind=kind, wardround=version, written=begun, files=writer.hashes)
            content = contents.model_dump_json().encode()
            entry = tarfile.TarInfo(_LAST)
            entry.size, entry.mtime, entry.mode = len(content), int(begun), OWNER_ONLY
            archive.addfile(entry, io.BytesIO(content))
            count = len(writer.hashes)

    if not file.parent.is_dir():
        msg = f"there is no folder {file.parent}: make it, or give another place for the backup."
        raise InputError(msg)
    try:
        replace_file(file, write, OWNER_ONLY)
    except OSError as error:
        own = error.filename is None or Path(error.filename).name.startswith(f".{file.name}.")
        name = "" if own else f" {Path(error.filename).name}"
        msg = f"the backup {file} was not written ({error.strerror}{name}): make room, or use the "
        msg += "account that the folder belongs to."
        raise RunError(msg) from None
    return count


@contextmanager
def restored(
    file: Path, kind: Literal["server", "site"], folder: Path
) -> Iterator[tuple[Path, Backup]]:
    """Unpack a backup beside a place, give that, and put it there when the context ends well.

    Args:
        folder: Its place: a folder that is new or empty.

    Raises:
        InputError: It is no whole backup of that kind, or the place holds something.
        RunError: It cannot be unpacked.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} is there and holds something: give a folder that is new or empty."
        raise InputError(msg)
    try:
        make_folder(folder.parent)
        staged = Path(mkdtemp(prefix=".restoring-", dir=folder.parent))
    except OSError as error:
        raise RunError(_not_written(folder, error)) from None
    try:
        keep_owner_of_folder(staged)
        yield staged, _unpack(file, kind, staged)
        for path in (*staged.rglob("*"), staged):
            flush(path)
        put_in_place(staged, folder)
    except OSError as error:
        raise RunError(_not_written(folder, error)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _unpack(file: Path, kind: str, staged: Path) -> Backup:
    hashes: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.isreg() else None
                if stream is None:
                    raise InputError(_not_a_backup(file, kind))
                if entry.name == _LAST:
                    contents = _Contents.model_validate_json(stream.read(_LARGEST_LAST))
                    return _checked(file, kind, contents, hashes)
                path = _inside(staged, entry.name)
                if path is None or entry.name in hashes:
                    raise InputError(_not_a_backup(file, kind))
                hashes[entry.name] = _write(cast("BinaryIO", stream), path, entry.mode)
    except (tarfile.TarError, ValidationError, EOFError):
        raise InputError(_not_a_backup(file, kind)) from None
    except FileNotFoundError:
        msg = f"there is no backup {file}: give the file that 'wardround {kind} backup' wrote."
        raise InputError(msg) from None
    msg = f"{file} was cut off: it has no end. Give another backup."
    raise InputError(msg)


def _checked(file: Path, kind: str, contents: _Contents, hashes: dict[str, str]) -> Backup:
    if contents.kind != kind:
        msg = f"{file} is the backup of a {contents.kind}: use 'wardround {contents.kind} restore'."
        raise InputError(msg)
    if contents.files != hashes:
        msg = f"{file} is damaged: its files are not those that were backed up. Give another one."
        raise InputError(msg)
    written = datetime.fromtimestamp(contents.written, UTC)
    return Backup(contents.wardround, written, len(hashes))


def _inside(folder: Path, name: str) -> Path | None:
    """Return where a file of that name goes; None where that is not below the folder."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        return None
    return folder.joinpath(*parts)


def _write(stream: BinaryIO, path: Path, mode: int) -> str:
    make_private_folder(path.parent)
    found = hashlib.sha256()
    write_new(path, b"", mode & BY_UMASK, durable=False)
    with path.open("wb") as target:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
            target.write(chunk)
    return found.hexdigest()


def _not_a_backup(file: Path, kind: str) -> str:
    return f"{file} is no backup of a {kind}: give the file that 'wardround {kind} backup' wrote."


def _not_written(folder: Path, error: OSError) -> str:
    return f"{folder} was not restored ({error.strerror}): make room, or choose another folder."


def is_whole(path: Path) -> bool:
    """Whether a file is one that was put in its place, and no lock."""
    is_lock = path.name == "lock" or path.name.endswith(".lock")
    return not is_lock and not any(part.endswith(".part") for part in path.parts)
