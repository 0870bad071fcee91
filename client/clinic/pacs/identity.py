"""Who made a result, and the names under which it is always the same object.

Identifiers follow from study, series and model alone: a result that is stored twice is one object.
"""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import wardround

NOT_FOR_DIAGNOSIS = "Not for diagnosis"
MANUFACTURER = "Wardround"
_SHOWN = 16  # of a digest, where a value may have 16 characters only
_LONGEST = 64  # characters of most DICOM texts (LO)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The model that made a result.

    Attributes:
        name: Of the model, in at most 64 characters.
        version: Of wardround, which ran it.
        digest: Of the model folder: 64 hexadecimal digits, several joined by ``+``.
        missing: Which optional images and values it did without.
    """

    name: str
    digest: str
    version: str = wardround.__version__
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name as DICOM texts may hold it."""
        text = "".join(c if c.isprintable() and c != "\\" else " " for c in self.name).strip()
        return text[:_LONGEST] or "model"

    @property
    def missing_words(self) -> str:
        """What it did without, in words; "" where nothing was missing."""
        return f"Missing, and done without: {', '.join(self.missing)}" if self.missing else ""

    @property
    def short_digest(self) -> str:
        """The first digits of the digest."""
        return self.digest[:_SHOWN]


def series_digest(objects: Iterable[str]) -> str:
    """Return the digest of a series: of the identifiers of its objects, in any order.

    A series that grew is another one, and gets a result of its own. Pixels are left out: an
    archive changes how they are written.
    """
    return hashlib.sha256("\n".join(sorted(set(objects))).encode()).hexdigest()


def derived_uid(study_uid: str, digest_of_series: str, algorithm: Algorithm, what: str) -> str:
    """Return the identifier of a part of a result (PS3.5, annex B.2: 2.25 and a number).

    Args:
        what: Which part, e.g. "SEG".
    """
    parts = ("wardround result 1", study_uid, digest_of_series, algorithm.digest, what)
    hashed = hashlib.sha256("\n".join(parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=hashed[:16], version=5).int}"
