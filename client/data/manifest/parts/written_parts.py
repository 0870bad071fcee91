"""Who is trained on and who is tested on, as a site wrote it down when it first saw a patient.

``parts/patients.jsonl`` of the site folder is readable by its owner alone. Its first line holds the
site's key, each later one patients who were given a part together, or by the manifest another than
they had; the last that names a patient counts. A patient stands there as a keyed hash of the
identifier, and stays when gone from the manifest.
"""

import hmac
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wardround.client.data.manifest.examination import SPLITS, SplitName
from wardround.client.data.manifest.parts.allocation import Shares
from wardround.client.site.folder import SITE_FILE, open_site
from wardround.common.errors import DataError
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.files.json_lines import split_lines
from wardround.common.files.lock import open_lock
from wardround.common.runtime.system.files import lock

PARTS_FOLDER, PARTS_FILE = "parts", "patients.jsonl"
KEY_BYTES = 32  # 256 bits: neither a patient nor a draw is found by trying
# Of client/privacy/ledger, which this layer does not know: a site that has one has answered before.
_LEDGER_FILE = "ledger.jsonl"
_HASH_DIGITS = 32  # 128 bits: no two patients of a site share a hash

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Hashes = tuple[_Hash, ...]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Head(_Line):
    """The first line.

    Attributes:
        begun_late: Whether the site had a ledger before this file: who was trained on until then
            is not known.
    """

    format: Literal[1] = 1
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    begun_late: bool = False


class GivenParts(_Line):
    """Patients who were given a part together, by their hash.

    Attributes:
        by: Who gave them: a draw, or the column ``split`` of the manifest.
        study: Digest of the study that was opened then.
        shares: Of that study, for training, validation and test.
    """

    by: Literal["draw", "manifest"]
    study: str
    shares: tuple[float, float, float]
    train: _Hashes = ()
    validation: _Hashes = ()
    test: _Hashes = ()

    def items(self) -> Iterator[tuple[str, SplitName]]:
        """Yield each patient's hash and part."""
        for part in SPLITS:
            hashes: _Hashes = getattr(self, part)
            for patient in hashes:
                yield patient, part


@dataclass(frozen=True)
class WrittenParts:
    """What is written in a site folder, or will be.

    Attributes:
        begun_late: As in the file's first line.
        lines: The oldest first.
        part_of: The part of each patient, by hash.
        former: The parts that a patient was in before, of those who were ever in more than one.
    """

    key: bytes
    begun_late: bool = False
    lines: tuple[GivenParts, ...] = ()
    part_of: dict[str, SplitName] = field(init=False)
    former: dict[str, set[SplitName]] = field(init=False)

    def __post_init__(self) -> None:
        part_of: dict[str, SplitName] = {}
        former: dict[str, set[SplitName]] = {}
        for patient, part in (item for line in self.lines for item in line.items()):
            before = part_of.setdefault(patient, part)
            if before != part:
                former.setdefault(patient, set()).add(before)
                part_of[patient] = part
        object.__setattr__(self, "part_of", part_of)
        object.__setattr__(self, "former", former)

    @property
    def are_mixed(self) -> bool:
        """Whether a patient was ever in more than one part, or may have been."""
        return self.begun_late or bool(self.former)

    def hash_of(self, patient: str) -> str:
        """Return the keyed hash by which a patient is known here."""
        return hmac.digest(self.key, patient.encode(), "sha256").hex()[:_HASH_DIGITS]

    def counts(self) -> Counter[SplitName]:
        """Return how many patients each part has, with those who left the manifest."""
        return Counter(self.part_of.values())

    def drawn_with(self) -> set[tuple[float, float, float]]:
        """Return the shares of the studies for which patients were drawn."""
        return {line.shares for line in self.lines if line.by == "draw"}

    def with_line(
        self,
        by: Literal["draw", "manifest"],
        study: str,
        shares: Shares,
        given: Mapping[str, SplitName],
    ) -> "WrittenParts":
        """Return this with patients who were given a part; itself where there is none."""
        if not given:
            return self
        hashes = {
            part: tuple(sorted(patient for patient, one in given.items() if one == part))
            for part in SPLITS
        }
        ordered = (shares["train"], shares["validation"], shares["test"])
        line = GivenParts(by=by, study=study, shares=ordered, **hashes)
        return replace(self, lines=(*self.lines, line))


def parts_are_mixed(site_folder: Path) -> bool:
    """Return whether any patient of a site was ever in more than one of its three parts.

    What was spent on the parts apart then adds up on that patient. It also says yes where nobody
    can know: the site has a privacy ledger that is older than what is written of the parts.

    Raises:
        DataError: What is written is damaged.
    """
    written = read_parts(site_folder)
    if written is None:
        return has_answered(site_folder)
    return written.are_mixed


def has_answered(site_folder: Path) -> bool:
    """Return whether a site has a privacy ledger, of its own or one that it shares."""
    own = site_folder / "ledger"
    named = open_site(site_folder).ledger_folder if (site_folder / SITE_FILE).exists() else own
    return any((folder / _LEDGER_FILE).exists() for folder in (own, named))


def read_parts(site_folder: Path) -> WrittenParts | None:
    """Return what is written in a site folder; None where nothing is.

    Raises:
        DataError: It is damaged, or cannot be read.
    """
    path = site_folder / PARTS_FOLDER / PARTS_FILE
    try:
        lines, torn = split_lines(path.read_bytes())
        head, *given = lines
        if torn:
            raise ValueError
        first = _Head.model_validate_json(head)
        written = tuple(GivenParts.model_validate_json(line) for line in given)
        return WrittenParts(bytes.fromhex(first.key), first.begun_late, written)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): use the account that the site runs under."
        raise DataError(msg) from None
    except ValueError:  # what is not as it was written is never drawn anew
        msg = (
            f"{path} is not as the site wrote it: put a copy back. It says who is trained on and "
            "who is tested on; the site does not train without."
        )
        raise DataError(msg) from None


def write_parts(site_folder: Path, written: WrittenParts, durable: bool) -> None:
    """Put what is written in the place of what was; by the holder of :func:`parts_held`.

    Args:
        durable: Whether to wait for the disk.

    Raises:
        DataError: It cannot be written; the old content stays.
    """
    path = site_folder / PARTS_FOLDER / PARTS_FILE
    head = _Head(key=written.key.hex(), begun_late=written.begun_late)
    lines = [line.model_dump_json() + "\n" for line in (head, *written.lines)]
    try:
        replace_file(path, "".join(lines), durable=durable)
    except OSError as error:
        raise DataError(_unusable(path, error)) from None


@contextmanager
def parts_held(site_folder: Path) -> Iterator[None]:
    """Be the only process that writes the parts of a site; wait for another that does.

    Raises:
        DataError: The folder cannot be made or locked.
    """
    folder = site_folder / PARTS_FOLDER
    try:
        make_private_folder(folder)
        descriptor = open_lock(folder)
    except OSError as error:
        raise DataError(_unusable(folder, error)) from None
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path} ({error.strerror}): make room, or make it writable for this account. "
        "Who is tested on is written down before anybody is trained on."
    )
