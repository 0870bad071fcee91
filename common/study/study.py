"""A study: everything that server and sites agree on. Declarative: data, never code."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from wardround.common.errors import StudyError
from wardround.common.files.validated_toml import explain_problems, load_toml
from wardround.common.study.registry import DEFAULT_LOSS, DEFAULT_METRIC
from wardround.common.study.rules.general import broken_rules
from wardround.common.study.sections import (
    DataSection,
    EvaluationSection,
    FederationSection,
    ModelSection,
    PrivacySection,
    Section,
    SimulationSection,
    StudySection,
    TrainingSection,
)


class Study(Section):
    """One study file, checked.

    Two studies with the same digest ask a hospital for the same thing.
    """

    study: StudySection
    data: DataSection
    model: ModelSection
    training: TrainingSection = TrainingSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()
    evaluation: EvaluationSection = EvaluationSection()
    simulation: SimulationSection = SimulationSection()

    @model_validator(mode="after")
    def _obey_rules(self) -> "Study":
        broken = broken_rules(self)
        if broken:
            raise ValueError(" ".join(broken))
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical content without ``[simulation]``, 64 hexadecimal digits."""
        content = self.model_dump(mode="json", exclude={"simulation"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def name(self) -> str:
        """The study's own name."""
        return self.study.name

    @property
    def class_count(self) -> int:
        """Number of classes, the background of a segmentation included."""
        return len(self.data.classes)

    @property
    def loss(self) -> str:
        """The loss, the task's own where none is chosen."""
        if self.training.loss is not None:
            return self.training.loss
        return "bce" if self.data.multi_label else DEFAULT_LOSS[self.study.task]

    @property
    def metric(self) -> str:
        """The metric that picks the best model, the task's own where none is chosen."""
        return self.evaluation.metric or DEFAULT_METRIC[self.study.task]

    @property
    def keep(self) -> str:
        """Which model is kept: the last under patient-level privacy, whatever the study says.

        Nothing is measured between its rounds then, so that none is known to be the best.
        """
        return "last" if self.privacy.mode == "patient" else self.evaluation.keep

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Spatial size the network is trained on: the patch, or else the image; None if free."""
        return self.training.patch_size or self.data.size

    def with_changes(self, changes: dict[str, Any]) -> "Study":
        """Return the study with dotted keys replaced, checked again.

        Args:
            changes: E.g. ``{"training.learning_rate": 0.01}``.

        Raises:
            StudyError: A key does not exist or a value is refused.
        """
        content = self.model_dump(mode="python", exclude_unset=True)
        for key, value in changes.items():
            _set(content, key, value)
        return parse_study(content, origin="the study with these changes")

    def to_toml(self) -> str:
        """Return the study as a file that reads back to an equal study."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def to_json(self) -> str:
        """Return the study as one line that travels in a message."""
        return self.model_dump_json(exclude_none=True)


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


def parse_study(content: dict[str, Any], origin: str = "the study") -> Study:
    """Return a checked study.

    Args:
        content: What a TOML reader returns.
        origin: How messages call it.

    Raises:
        StudyError: Says every problem in one paragraph, with the nearest known key.
    """
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise StudyError(explain_problems(error, Study, origin)) from None


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
