"""Which version of its keys a study is written in, and the way from an older version to today's.

A study says it as ``schema = 2``; one that says nothing is of version 1. Whoever changes what a
key is called, or what holds where it is left out, adds a step here: older files are then still
read, and ``wardround study upgrade`` rewrites them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import wardround
from wardround.common.errors import StudyError
from wardround.common.runtime.printable import printable

KEY = "schema"
_FIRST = 1
_SHOWN = 40  # characters of what stands there instead of a version


@dataclass(frozen=True)
class Step:
    """What changed from one version to the next. Keys are dotted: ``training.learning_rate``.

    Attributes:
        says: A sentence for whoever upgrades a file.
        renamed: Keys with their new names; a key stays in its table.
        removed: Keys that nothing reads any more.
        added: Keys whose default changed, with the older default: so an older study keeps its
            meaning. A file that says something for the key keeps that.
    """

    says: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    added: Mapping[str, object] = field(default_factory=dict)


# Keys that came after hospitals had approved studies, with the value that means what held before.
# There they are no part of a digest: a study that says nothing of them is still the approved one.
LATER: Mapping[str, object] = {
    "continual": None,
    "data.combat": None,
    "data.harmonisation": {"bias_correction": False, "foreground": "nonzero", "landmarks": []},
    "data.optional": [],
    "data.outcome": None,
    "evaluation.metrics": [],
    "evaluation.tta": "none",
    "federation.ema": None,
    "federation.masks": {
        "largest_change": 16.0,
        "most_examinations": 1_000_000,
        "most_sites": 100,
        "word_bits": 64,
        "clip_norm": None,
        "groups": 1,
        "smallest_group": 3,
    },
    "federation.masks.clip_norm": None,
    "federation.masks.groups": 1,
    "federation.masks.smallest_group": 3,
    "federation.masks.word_bits": 64,
    "federation.options.feature_weight": 0.01,
    "federation.secure_aggregation": False,
    "model.anchors": None,
    "model.arguments": {},
    "model.deep_supervision": 0,
    "model.fixer": "none",
    "model.fusion": "early",
    "model.test_time_statistics": None,
    "packages": {},
    "privacy.colluding_sites": None,
    "privacy.gradients": "auto",
    "privacy.noise": "local",
    "statistics.combat": [],
    "study.repeats": None,
    "training.ema": None,
    "training.label_smoothing": 0.0,
    "training.masking": None,
    "training.mixup": 0.0,
    "training.modality_dropout": 0.0,
    "training.nesterov": False,
}

STEPS: tuple[Step, ...] = ()  # the first leads from version 1 to 2


def newest() -> int:
    """Return the version that this installation writes."""
    return _FIRST + len(STEPS)


def version_of(content: Mapping[str, Any], origin: str = "the study") -> int:
    """Return the version in which a study is written.

    Raises:
        StudyError: What it says is no version, or one that is newer than this installation.
    """
    said = content.get(KEY, _FIRST)
    if type(said) is not int or said < _FIRST:
        shown = printable(str(said), _SHOWN)
        msg = (
            f"{origin} says {KEY} = {shown}, which is no version of a study: write a whole number "
            f"from {_FIRST} to {newest()}, or leave the line out, which means {_FIRST}."
        )
        raise StudyError(msg)
    if said > newest():
        msg = (
            f"{origin} is written in version {printable(str(said), _SHOWN)} of the study file, and "
            f"this Wardround ({wardround.__version__}) reads versions up to {newest()}: install "
            "the Wardround that wrote it, or ask its author for an older version."
        )
        raise StudyError(msg)
    return said


def brought_up(content: Mapping[str, Any], origin: str = "the study") -> dict[str, Any]:
    """Return a study's content in the newest version, without the version.

    Raises:
        StudyError: See :func:`version_of`; or an old and a new name of a key stand side by side.
    """
    moved, before = dict(content), version_of(content, origin)
    moved.pop(KEY, None)
    for step in STEPS[before - _FIRST :]:
        _apply(step, moved, origin)
    return moved


def _apply(step: Step, content: dict[str, Any], origin: str) -> None:
    for old, new in step.renamed.items():
        table, name = _table_of(content, old), new.rpartition(".")[2]
        key = old.rpartition(".")[2]
        if table is None or key not in table:
            continue
        if name in table:
            msg = f"{origin} says both {old} and {new}, two names of one key: take {old} out."
            raise StudyError(msg)
        table[name] = table.pop(key)
    for key in step.removed:
        table = _table_of(content, key)
        if table is not None:
            table.pop(key.rpartition(".")[2], None)
    for key, value in step.added.items():
        table = _table_of(content, key, make=True)
        if table is not None:
            table.setdefault(key.rpartition(".")[2], value)


def _table_of(content: dict[str, Any], key: str, make: bool = False) -> dict[str, Any] | None:
    """Return a copy, in its place, of the table that holds a key; None if no table is there.

    The caller's tables stay as they are; only those on the way are copied, however deep a hostile
    study nests others.
    """
    table: Any = content
    for part in key.split(".")[:-1]:
        inside = table.get(part, {} if make else None)
        if not isinstance(inside, dict):
            return None
        table[part] = dict(inside)
        table = table[part]
    found: dict[str, Any] = table
    return found


def without_later(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's content without the keys of LATER that mean what held before they came."""

    def kept(table: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            name = f"{path}{key}"
            if name in LATER and value == LATER[name]:
                continue
            found[key] = kept(value, f"{name}.") if isinstance(value, dict) else value
        return found

    return kept(content, "")
