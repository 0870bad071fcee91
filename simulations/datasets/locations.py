"""Where data sets lie on this machine, and how one is fetched with its checksum."""

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import InputError, install_command
from wardround.common.files.cache_folder import (
    cache_folder as cache_folder,  # data sets find it here
)


@dataclass(frozen=True, slots=True)
class Download:
    """A file that can be fetched.

    Attributes:
        md5: The publisher's digest; a file with another one is refused.
    """

    url: str
    md5: str
    file_name: str


def data_root_or_environment(data_root: Path | None) -> Path | None:
    """Return the folder of data sets: the given one, else ``WARDROUND_DATA``.

    Raises:
        InputError: The folder does not exist.
    """
    text = os.environ.get("WARDROUND_DATA")
    root = data_root or (Path(text) if text else None)
    if root is None:
        return None
    if not root.is_dir():
        origin = "--data-root" if data_root else "WARDROUND_DATA"
        msg = f"the data folder {root} does not exist: give an existing folder with {origin}."
        raise InputError(msg)
    return root.resolve()


def given_path(text: str, data_root: Path | None) -> Path:
    """Return a path from an option, relative ones below the data root.

    Raises:
        InputError: There is nothing at that path.
    """
    path = Path(text).expanduser()
    places = [path] if path.is_absolute() or data_root is None else [data_root / path, path]
    for place in places:
        if place.exists():
            return place.resolve()
    looked = " and ".join(str(place) for place in places)
    msg = (
        f"there is nothing at {looked}: give the right path in [simulation.options]. A relative "
        "one starts from the folder of the study file, from --data-root, or from where you are."
    )
    raise InputError(msg)


def find_folder(names: Sequence[str], marker: Iterable[str], data_root: Path | None) -> Path | None:
    """Return the first folder of a data set below the data root or the cache.

    Args:
        names: Usual folder names, first the likeliest; matched without regard to case, and with
            anything after them. The data root itself may be the folder.
        marker: Glob patterns, one of which the folder must match to be the data set.
        data_root: Looked in before the cache; None looks in the cache alone.
    """
    patterns = tuple(marker)
    for root in (data_root, cache_folder()):
        if root is None or not root.is_dir():
            continue
        below = sorted(child for child in root.iterdir() if child.is_dir())
        for name in names:
            for child in below:
                if child.name.lower().startswith(name.lower()) and _holds(child, patterns):
                    return child.resolve()
        if root == data_root and _holds(root, patterns):
            return root.resolve()
    return None


def _holds(folder: Path, patterns: Iterable[str]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def not_found(title: str, looked_for: str, data_root: Path | None, remedy: str) -> InputError:
    """Return the refusal for a data set that is not on this machine."""
    where = str(data_root) if data_root else "(no --data-root or WARDROUND_DATA was given)"
    msg = (
        f"{title} was not found: looked for {looked_for} in {where} and {cache_folder()}. {remedy}"
    )
    return InputError(msg)


def fetch(download: Download) -> Path:
    """Return the file, fetched into the cache unless it is there already.

    Raises:
        InputError: The extra is missing, there is no network, or the digest is another one.
    """
    try:
        import pooch
    except ImportError:
        msg = f"a download needs pooch, which is not installed: {install_command('simulation')}"
        raise InputError(msg) from None
    try:
        fetched = pooch.retrieve(
            download.url,
            known_hash=f"md5:{download.md5}",
            fname=download.file_name,
            path=cache_folder() / "downloads",
            progressbar=False,
        )
    except ValueError as error:  # pooch: the digest is not the known one
        msg = (
            f"{download.url} has another MD5 than {download.md5}: the download is broken or the "
            "file was changed. Try again, or fetch it by hand and give its place with --data-root."
        )
        raise InputError(msg) from error
    except (OSError, zlib.error) as error:
        msg = (
            f"cannot download {download.url} ({type(error).__name__}): fetch it where there is a "
            "network and give its folder with --data-root or WARDROUND_DATA."
        )
        raise InputError(msg) from error
    return Path(fetched)
