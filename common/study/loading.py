"""The only ways to a study: read, received or changed, and each time held against all rules."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wardround.common.errors import StudyError
from wardround.common.files.validated_toml import explain_problems, load_toml, nearest_key
from wardround.common.runtime.printable import printable
from wardround.common.study.rules.general import broken_rules
from wardround.common.study.rules.privacy.patient_privacy import promise_rules
from wardround.common.study.study import Study
from wardround.common.study.versions import brought_up


def parse_study(content: dict[str, Any], origin: str = "the study", planned: bool = True) -> Study:
    """Return a checked study.

    Args:
        content: What a TOML reader returns.
        origin: How messages call it.
        planned: Whether the promise of ``[privacy]`` is worked out too, which may take half a
            minute: not for a study that nobody here has approved.

    Raises:
        StudyError: Says every problem in one paragraph, with the nearest known key.
    """
    if isinstance(content, dict) and "track" in content:
        msg = (
            f"{origin} is refused: track is no section of a study, which cannot say where its "
            "numbers are sent. Move [track] to a file of your own, ~/.config/wardround/user.toml."
        )
        raise StudyError(msg)
    if isinstance(content, dict):  # what came as JSON may be anything
        content = brought_up(content, origin)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise StudyError(explain_problems(error, Study, origin)) from None
    broken = broken_rules(study)
    if broken:
        msg = f"{origin} is refused: {' '.join(broken)}"
        raise StudyError(msg)
    if planned:
        require_promise(study, origin)
    return study


def require_promise(study: Study, origin: str = "the study") -> None:
    """Check that what ``[privacy]`` promises to patients can be kept; the plan is kept for later.

    Raises:
        StudyError: It cannot.
    """
    if broken := list(promise_rules(study)):
        msg = f"{origin} is refused: {' '.join(broken)}"
        raise StudyError(msg)


def require_simulation(study: Study, origin: str = "the study") -> None:
    """Check that ``[simulation]`` asks for nothing that no data could give.

    Raises:
        StudyError: It does.
    """
    from wardround.common.study.rules.simulation import simulation_rules  # no site reads it

    if broken := list(simulation_rules(study)):
        msg = f"{origin} cannot be simulated: {' '.join(broken)}"
        raise StudyError(msg)


def study_from_json(text: str) -> Study:
    """Return the study that :meth:`Study.to_json` wrote, its promise not worked out.

    Raises:
        StudyError: It is not JSON, or not a study.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = printable(str(error), 200)
        msg = f"the study is not JSON ({said}): both sides must run the same version."
        raise StudyError(msg) from None
    return parse_study(content, planned=False)


def load_study(path: Path, planned: bool = True) -> Study:
    """Read a study file.

    Args:
        planned: See :func:`parse_study`.

    Raises:
        StudyError: The file is missing, is not TOML, or is not a study.
    """
    absent = (
        f"there is no study file {path}. "
        "Make one with 'wardround study new FILE', or give the name of a built-in study."
    )
    hint = "Mend that line; 'wardround study schema' lists the keys."
    return parse_study(load_toml(path, StudyError, absent, hint), origin=str(path), planned=planned)


def with_changes(
    study: Study, changes: Mapping[str, object], origin: str = "the study with these changes"
) -> Study:
    """Return a study with dotted keys replaced, checked again.

    Args:
        changes: E.g. ``{"training.learning_rate": 0.01}``.
        origin: How messages call the study.

    Raises:
        StudyError: A key does not exist or a value is refused.
    """
    content = study.model_dump(mode="python", exclude_unset=True)
    for key, value in changes.items():
        _set(content, key, value)
    return parse_study(content, origin=origin)


def _set(content: dict[str, Any], key: str, value: object) -> None:
    *path, name = key.split(".")
    if not path and key in Study.model_fields:
        msg = f"cannot set {key!r}: it is a section of the study; name a key in it, as {key}.KEY."
        raise StudyError(msg)
    if not path:
        meant = nearest_key(key, Study)
        hint = f"did you mean {meant}?" if meant else "e.g. training.learning_rate."
        msg = f"cannot set {key!r}: name the section too; {hint}"
        raise StudyError(msg)
    table: object = content
    for part in path:
        table = table.setdefault(part, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        msg = f"cannot set {key!r}: {'.'.join(path)} is not a table. Set it as a whole."
        raise StudyError(msg)
    table[name] = value
