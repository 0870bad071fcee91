"""What the attacks on a run found, as rows and pictures in the run folder.

``attack.json`` holds :class:`Findings` and ``attack.npz`` the pictures; the report reads both.
"""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file

FACTS, PICTURES = "attack.json", "attack.npz"


@dataclass(frozen=True, slots=True)
class Finding:
    """One attack on one kind of protection.

    Attributes:
        attack: Its name, e.g. "read off the first layer".
        protection: What was done to the update, e.g. "none".
        patients: How many were attacked.
        likeness: Mean correlation of a reconstruction with the patient's image, 1 at most.
        identified: Reconstructions that are nearest to their own patient.
        candidates: Patients among whom the nearest was looked for.
        seconds: Wall time of all tries.
    """

    attack: str
    protection: str
    patients: int
    likeness: float
    identified: int
    candidates: int
    seconds: float


@dataclass(frozen=True, slots=True)
class NotRun:
    """An attack that was not run, and the sentence why."""

    attack: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """What the planted patients proved about the plan.

    Attributes:
        claimed: Epsilon by accounting.
        proven: Epsilon that was lost at least.
        confidence: Of that bound.
        shares: Of how many hospitals' shares of noise the sum was that was audited; 0 where it was
            one hospital's update.
    """

    claimed: float
    proven: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    seconds: float
    shares: int = 0


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the attacks on a run found.

    Attributes:
        site: Whose patients were attacked.
        plan: The protection in words; empty if the study cannot be trained with any.
        own_plan: Whether the run itself was trained under that plan.
    """

    site: str
    network: str
    plan: str
    own_plan: bool
    rows: tuple[Finding, ...]
    not_run: tuple[NotRun, ...]
    audit: AuditFinding | None


@dataclass(frozen=True, slots=True)
class AttackPictures:
    """Originals and what an attack made of them.

    Attributes:
        attack: ``(N,)`` names.
        images: ``(N, P, H, W)`` or ``(N, P, H, W, 3)`` in 0..1, P panels a patient.
        labels: ``(P,)`` names of the panels.
    """

    attack: NDArray[np.str_]
    images: NDArray[np.float32]
    labels: NDArray[np.str_]


def write_findings(run: Path, findings: Findings, pictures: AttackPictures | None) -> None:
    """Write the findings into a run folder, in place of earlier ones."""
    (run / PICTURES).unlink(missing_ok=True)
    if pictures is not None:
        arrays = {name: getattr(pictures, name) for name in ("attack", "images", "labels")}
        np.savez_compressed(run / PICTURES, allow_pickle=False, **arrays)
    text = json.dumps(asdict(findings), indent=2) + "\n"
    replace_file(run / FACTS, text, BY_UMASK, durable=False)


def read_findings(run: Path) -> Findings | None:
    """Read what :func:`write_findings` wrote; None if the run was never attacked.

    Raises:
        InputError: The file is damaged.
    """
    path = run / FACTS
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Finding(**row) for row in content.pop("rows"))
        not_run = tuple(NotRun(**row) for row in content.pop("not_run"))
        audit = content.pop("audit")
        audited = None if audit is None else AuditFinding(**audit)
        return Findings(**content, rows=rows, not_run=not_run, audit=audited)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(_damaged(path)) from None


def read_attack_pictures(run: Path) -> AttackPictures | None:
    """Read the pictures; None if there are none.

    Raises:
        InputError: The file is damaged.
    """
    path = run / PICTURES
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            attack, images, labels = arrays["attack"], arrays["images"], arrays["labels"]
            return AttackPictures(attack, images.astype(np.float32), labels)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise InputError(_damaged(path)) from None


def _damaged(path: Path) -> str:
    return f"{path} is damaged or of another version of wardround: run 'wardround attack' again."
