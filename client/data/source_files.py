"""Whether a site's data lie on the disk as they did when they were read.

What a hospital withdraws (a row of the manifest, an image) must not be used again because a copy
of it is still in memory. So who holds copies looks at the sources before each use. Ten thousand
files are looked at in a fifth of a second: only their entries are read, never their content.

The copies on the disk lie in ``state/prepared/``, one folder for each study's settings, with a mark
that says of which manifest they are.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from wardround.client.site.folder import SITE_FILE, Site
from wardround.common.files.atomic import replace_file

PREPARED_FOLDER = "prepared"
_MARK = "manifest.mark"

# Of a file: when it was written, its size, its inode. Of a folder: a hash of those of its files.
_State = tuple[int, int, int] | int | None


class SourceFiles:
    """How files and folders lay on the disk.

    Args:
        lists: Small files that name the others. One that is written again as it was has not
            changed; one that is missing counts too.
    """

    def __init__(self, lists: Iterable[Path]) -> None:
        # First how it lies: what is written in between is then seen as a change.
        self._lists = {path: (_state_of(str(path)), _content_of(path)) for path in lists}
        self._images: dict[str, _State] = {}

    def add_images(self, paths: Iterable[Path]) -> None:
        """Look at images too, each once, whatever the number of its examinations."""
        self._images = {name: _state_of(name) for name in {str(path) for path in paths}}

    def have_changed(self, images: bool) -> bool:
        """Return whether one was changed, removed, or put there.

        Args:
            images: Whether to look at the images, and not only at the lists that name them.
        """
        if any(self._has_changed(path) for path in self._lists):
            return True
        return images and any(_state_of(name) != was for name, was in self._images.items())

    def _has_changed(self, path: Path) -> bool:
        state, content = self._lists[path]
        now = _state_of(str(path))
        if now == state:
            return False
        if _content_of(path) != content:
            return True
        self._lists[path] = now, content
        return False


def mark_of(site: Site) -> bytes:
    """Return what tells one content of a site's manifest, and of its corrections, from another."""
    more = (site.corrections_path, site.unlabelled_path)
    return b" ".join(filter(None, map(_content_of, (site.manifest_path, *more))))


def lists_of(site: Site) -> tuple[Path, ...]:
    """Return the small files that say which examinations a site has, and what they show."""
    own = site.folder / SITE_FILE
    return own, site.manifest_path, site.corrections_path, site.unlabelled_path


def write_mark(folder: Path, mark: bytes) -> None:
    """Say of which manifest the prepared images of a folder are."""
    replace_file(folder / _MARK, mark, durable=False)


def has_mark(folder: Path, mark: bytes) -> bool:
    """Whether the prepared images of a folder are of this manifest."""
    try:
        return (folder / _MARK).read_bytes() == mark
    except OSError:
        return False


def is_mark(path: Path) -> bool:
    """Whether a file is such a mark."""
    return path.name == _MARK


def remove_outdated(site: Site, mark: bytes | None, keep: Path | None = None) -> None:
    """Remove prepared images that may be of patients who were withdrawn since.

    They are prepared again when a study asks for them.

    Args:
        mark: Of the manifest as it is; folders of another one go. None removes all.
        keep: A folder that stays in any case.
    """
    root = site.state_folder / PREPARED_FOLDER
    if not root.is_dir():
        return
    for folder in root.iterdir():
        if folder != keep and (mark is None or not has_mark(folder, mark)):
            shutil.rmtree(folder, ignore_errors=True)


def _content_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest().encode()
    except OSError:
        return b""


def _state_of(name: str) -> _State:
    try:
        found = os.stat(name)
        if not stat.S_ISDIR(found.st_mode):
            return _facts(found)
        with os.scandir(name) as entries:
            return hash(frozenset((entry.name, *_facts(entry.stat())) for entry in entries))
    except OSError:
        return None


def _facts(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino
