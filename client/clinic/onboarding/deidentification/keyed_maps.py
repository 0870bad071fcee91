"""Keyed maps from what names a patient to what does not: the same in every run and process.

All are HMAC-SHA256 with a secret that only the site has. Whoever lacks it can neither undo a map
nor try a list of names against it; whoever has it can, so it never leaves the site.
"""

import base64
import hmac
import re
import secrets
import unicodedata
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.files.atomic import create_file, make_private_folder
from wardround.common.runtime.system.files import is_open_to_others

IMPORT_FOLDER = "import"
SECRET_FILE = "secret.key"
_SECRET_BYTES = 32
_DAYS = 3650  # how far back dates move at most
_DAY_SECONDS = 86_400
_PSEUDONYM_BYTES = 10  # 80 bits: no two patients of a hospital meet


@dataclass(frozen=True)
class KeyedMaps:
    """The maps of one site.

    Args:
        secret: 32 bytes.
    """

    secret: bytes = field(repr=False)

    def uid(self, uid: str) -> str:
        """Return the UID that stands for another, of the form 2.25.N (PS3.5 B.2)."""
        digest = self._digest("uid", uid.strip(" \0"))
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"

    def pseudonym(self, patient: str) -> str:
        """Return the name that stands for a patient's identifier: 16 letters and digits."""
        digest = self._digest("patient", normal_identifier(patient))
        return base64.b32encode(digest[:_PSEUDONYM_BYTES]).decode()

    def offset_seconds(self, patient: str, whole_days: bool = False) -> int:
        """Return how far the dates of a patient move: between a day and ten years back."""
        number = int.from_bytes(self._digest("offset", normal_identifier(patient))[:8], "big")
        seconds = _DAY_SECONDS + number % ((_DAYS - 1) * _DAY_SECONDS)
        return -(seconds - seconds % _DAY_SECONDS if whole_days else seconds)

    def digest(self, *parts: str) -> str:
        """Return by what the site's journal knows a study or a series: 64 hexadecimal digits."""
        return self._digest("journal", *parts).hex()

    def _digest(self, purpose: str, *parts: str) -> bytes:
        text = "\0".join((purpose, *parts))
        return hmac.digest(self.secret, text.encode("utf-8", "surrogatepass"), "sha256")


def normal_identifier(text: str) -> str:
    """Return an identifier in the one form in which it is compared: blanks and code points."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text).strip(" \0\t\r\n"))


def open_secret(site_folder: Path) -> KeyedMaps:
    """Return the maps of a site; the first import makes their secret.

    Raises:
        InputError: The secret is damaged, others may read it, or it is gone and the site's journal
            still speaks of what was imported with it.
    """
    folder = site_folder / IMPORT_FOLDER
    path = folder / SECRET_FILE
    try:
        if not path.exists():
            _make_secret(path)
        if is_open_to_others(path.stat()):
            msg = f"others may read {path}: chmod 600 {path}"
            raise InputError(msg)
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        msg = f"cannot use {path} ({error.strerror}): make it readable for this account alone."
        raise InputError(msg) from None
    except ValueError:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        msg = f"{path} is damaged: put it back from a backup of the site folder."
        raise InputError(msg)
    return KeyedMaps(secret)


def passing_secret(site_folder: Path) -> KeyedMaps:
    """Return the maps of a site, or, before its first import, maps that nobody keeps."""
    if (site_folder / IMPORT_FOLDER / SECRET_FILE).exists():
        return open_secret(site_folder)
    return KeyedMaps(secrets.token_bytes(_SECRET_BYTES))


def _make_secret(path: Path) -> None:
    if any(path.parent.glob("journal*")):
        msg = (
            f"{path} is gone, and the images that are here were imported with it: put it back from "
            "a backup of the site folder. With another secret, patients would get second names."
        )
        raise InputError(msg)
    make_private_folder(path.parent)
    try:
        create_file(path, secrets.token_bytes(_SECRET_BYTES).hex().encode() + b"\n")
    except FileExistsError:
        return  # another process made it just now
