"""The only ways to a study: read, received or changed, and each time held against all rules."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wardround.common.errors import StudyError
from wardround.common.files.validated_toml import explain_problems, load_toml
from wardround.common.study.rules.general import broken_rules
from wardround.common.study.study import Study


def parse_study(content: dict[str, Any], origin: str = "the study") -> Study:
    """Return a checked study.

    Args:
        content: What a TOML reader returns.
        origin: How messages call it.

    Raises:
        StudyError: Says every problem in one paragraph, with the nearest known key.
    """
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise StudyError(explain_problems(error, Study, origin)) from None
    broken = broken_rules(study)
    if broken:
        msg = f"{origin} is refused: {' '.join(broken)}"
        raise StudyError(msg)
    return study


def study_from_json(text: str) -> Study:
    """Return the study that :meth:`Study.to_json` wrote.

    Raises:
        StudyError: It is not JSON, or not a study.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        msg = f"the study is not JSON ({error}): both sides must run the same version."
        raise StudyError(msg) from None
    return parse_study(content)


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        StudyError: The file is missing, is not TOML, or is not a study.
    """
    absent = (
        f"there is no study file {path}. "
        "Make one with 'wardround study new FILE', or give the name of a built-in study."
    )
    hint = "Mend that line; 'wardround study schema' lists the keys."
    return parse_study(load_toml(path, StudyError, absent, hint), origin=str(path))


def with_changes(study: Study, changes: Mapping[str, object]) -> Study:
    """Return a study with dotted keys replaced, checked again.

    Args:
        changes: E.g. ``{"training.learning_rate": 0.01}``.

    Raises:
        StudyError: A key does not exist or a value is refused.
    """
    content = study.model_dump(mode="python", exclude_unset=True)
    for key, value in changes.items():
        _set(content, key, value)
    return parse_study(content, origin="the study with these changes")


def _set(content: dict[str, Any], key: str, value: object) -> None:
    *path, name = key.split(".")
    if not path:
        msg = f"cannot set {key!r}: name the section too, e.g. training.learning_rate."
        raise StudyError(msg)
    table: object = content
    for part in path:
        table = table.setdefault(part, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        msg = f"cannot set {key!r}: {'.'.join(path)} is not a table. Set it as a whole."
        raise StudyError(msg)
    table[name] = value
