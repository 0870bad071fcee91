"""The one way to write a file: whole or not at all, and private from the first moment.

A file is written under a second name beside its place and put there with one rename: a reader sees
the old file or the new one, never a part of either.

What root makes in a folder of another account belongs to that account: a site's daemon could not
read what ``sudo wardround site approve`` wrote otherwise.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from wardround.common.runtime.system.files import (
    OPENS_FOLDERS,
    PLAINLY,
    give_to,
    open_folder_itself,
    open_to_flush,
    owner_to_keep,
)

OWNER_ONLY, READABLE = 0o600, 0o644
BY_UMASK = 0o666  # what the account's umask leaves of it, as with any file that a program opens
_OWNER_FOLDER = 0o700

Write: TypeAlias = Callable[[Path], object]
"""Writes content into the empty file at a path; one that puts another there sets its mode."""


def replace_file(
    path: Path, content: bytes | str | Write, mode: int = OWNER_ONLY, durable: bool = True
) -> None:
    """Put a file in the place of another, or where there is none.

    The mode holds from the first moment: nobody else can open the file before it is narrowed.

    Args:
        content: Bytes, text (written as UTF-8), or what writes it, where it is too large to hold.
        mode: Of the file; the account's umask takes from it.
        durable: Whether to wait until the disk has the file and its name, so that it survives a
            power cut; what a killed process wrote is safe without.

    Raises:
        OSError: It cannot be written; the old one stays, and nothing else.
    """
    part = _part_of(path)
    part.unlink(missing_ok=True)  # of an earlier process with this number
    try:
        _write_part(part, content, mode, durable)
        put_in_place(part, path, durable)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def create_file(path: Path, content: bytes, mode: int = OWNER_ONLY, durable: bool = True) -> None:
    """Write a file that is not there yet, whole or not at all, whoever else tries at this moment.

    Args:
        durable: Whether to wait until the disk has the file and its name.

    Raises:
        FileExistsError: It is there, or another process made it meanwhile.
        OSError: It cannot be written; nothing is left.
    """
    part = _part_of(path)
    part.unlink(missing_ok=True)
    try:
        write_new(part, content, mode, durable)
        os.link(part, path)  # unlike a rename, it fails where there is a file
        if durable:
            flush_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_new(path: Path, content: bytes, mode: int = OWNER_ONLY, durable: bool = True) -> None:
    """Write a file that is not there yet, straight to its place: a kill may leave a part of it.

    For a folder that is put in its place as a whole. The mode holds from the first moment.

    Args:
        durable: Whether to wait until the disk has the file; its name is not waited for.

    Raises:
        FileExistsError: It is there.
        OSError: It cannot be written; what was begun is removed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAINLY, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            keep_owner(descriptor, path.parent)
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def put_in_place(written: Path, path: Path, durable: bool = True) -> None:
    """Rename what was written, a file or a folder, to its place.

    Args:
        durable: Whether to wait until the disk has the new name. The content is the caller's.

    Raises:
        OSError: It cannot be renamed, or the disk did not take it.
    """
    written.replace(path)
    if durable:
        flush_folder(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers of a file left. For a file that nobody else may be writing."""
    for part in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder.

    Raises:
        OSError: The disk did not take it.
    """
    descriptor = open_to_flush(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, on a system where that is needed.

    Raises:
        OSError: The disk did not take them.
    """
    if OPENS_FOLDERS:
        flush(folder)


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is."""
    make_folder(folder, _OWNER_FOLDER)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing; one that is there stays as it is.

    Args:
        mode: Of the folder itself; the account's umask takes from it.

    Raises:
        OSError: It cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for made in reversed(missing):
        keep_owner_of_folder(made)


def keep_owner_of_folder(made: Path) -> None:
    """Give a folder that this process has just made to the owner of the one that it lies in."""
    if owner_to_keep(made.parent) is None:
        return
    descriptor = open_folder_itself(made)
    try:
        keep_owner(descriptor, made.parent)
    finally:
        os.close(descriptor)


def open_or_make(path: Path, flags: int) -> int:
    """Open a file, made where it is missing; its folder's owner alone may open it then.

    Args:
        flags: How; ``O_CREAT`` is added.

    Raises:
        OSError: It cannot be opened.
    """
    flags |= os.O_CREAT | PLAINLY
    try:
        descriptor = os.open(path, flags | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        return os.open(path, flags, OWNER_ONLY)
    try:
        keep_owner(descriptor, path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def keep_owner(descriptor: int, folder: Path) -> None:
    """Give what this process has just made, and nobody else, to the owner of a folder.

    Only root's files need it. Never call it for what was there before: whoever owns the folder
    could have put a link to another's file there.

    Args:
        folder: In which it lies.

    Raises:
        OSError: It cannot be given.
    """
    owner = owner_to_keep(folder)
    if owner is not None:
        give_to(descriptor, owner)


def _part_of(path: Path) -> Path:
    """Return the name under which this thread writes a file; no other writes under it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.part")


def _write_part(part: Path, content: bytes | str | Write, mode: int, durable: bool) -> None:
    if callable(content):
        write_new(part, b"", mode, durable=False)
        content(part)
        if durable:
            flush(part)
    else:
        data = content.encode() if isinstance(content, str) else content
        write_new(part, data, mode, durable)


def _escaped(name: str) -> str:
    """Return a pattern that only this name fits."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
