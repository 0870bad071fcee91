"""A study: everything that server and sites agree on. Declarative: data, never code."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from wardround.common.files.packages.references import reference_of
from wardround.common.study import versions
from wardround.common.study.registry import NETWORKS, TASKS, TaskEntry
from wardround.common.study.sections.continual import ContinualSection
from wardround.common.study.sections.data import DataSection
from wardround.common.study.sections.evaluation import EvaluationSection
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.sections.fields import Hash, PackageName, Section
from wardround.common.study.sections.heading import StudySection
from wardround.common.study.sections.model import ModelSection
from wardround.common.study.sections.outcome import OutcomeSection
from wardround.common.study.sections.privacy import PrivacySection
from wardround.common.study.sections.simulation import SimulationSection
from wardround.common.study.sections.statistics import StatisticsSection
from wardround.common.study.sections.training import TrainingSection
from wardround.common.study.versions import without_later


class Study(Section):
    """One study file, each key checked by itself.

    Two studies with the same digest ask a hospital for the same thing. What its keys allow of each
    other stands in the rules, which everything in ``loading`` runs.

    Attributes:
        continual: Of a study that goes on from another one, or whose data come in waves.
        packages: The SHA-256 over the files of each installed package that the study names, by the
            package's name.
    """

    study: StudySection
    data: DataSection
    model: ModelSection
    training: TrainingSection = TrainingSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()
    evaluation: EvaluationSection = EvaluationSection()
    statistics: StatisticsSection = StatisticsSection()
    continual: ContinualSection | None = None
    packages: Annotated[dict[PackageName, Hash], Field(max_length=16)] = Field(default_factory=dict)
    simulation: SimulationSection = SimulationSection()

    @model_serializer(mode="wrap")
    def _with_version(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the version too, from the second on: so version 1 keeps its digests."""
        written: dict[str, Any] = content(self)
        return {versions.KEY: versions.newest(), **written} if versions.STEPS else written

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical content without ``[simulation]``, 64 hexadecimal digits.

        From version 2 of the keys on the content holds the version: what a hospital approved in an
        older one, whose keys may have meant something else, it has not approved in a newer one.
        """
        content = without_later(self.model_dump(mode="json", exclude={"simulation"}))
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> "Study":
        """Return a copy, whose digest is its own and not that of what it was copied from."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied

    @property
    def name(self) -> str:
        """The study's own name."""
        return self.study.name

    @property
    def task(self) -> TaskEntry:
        """What the study's task asks of the study."""
        return TASKS[self.study.task]

    @property
    def class_count(self) -> int:
        """Number of classes, the background of a segmentation included."""
        return len(self.data.classes)

    @property
    def output_count(self) -> int:
        """Number of the network's outputs, for an image or a voxel."""
        if self.task.restores:
            return self.data.planes
        if self.task.outcome == "time" and self.loss != "cox":
            return len(self.outcome.times)
        return 1 if self.task.outcome else self.class_count

    @property
    def outcome(self) -> OutcomeSection:
        """What a task without classes predicts."""
        return self.data.outcome or OutcomeSection()

    @property
    def loss(self) -> str:
        """The loss, the task's own where none is chosen."""
        if self.training.loss is not None:
            return self.training.loss
        return "bce" if self.data.multi_label else self.task.loss

    @property
    def metric(self) -> str:
        """The metric that picks the best model, the task's own where none is chosen."""
        if self.evaluation.metric is None and self.contrasts:
            return "loss"  # a network as it was drawn tells most views apart, and would be kept
        return self.evaluation.metric or self.task.metric

    @property
    def package_metrics(self) -> tuple[str, ...]:
        """The metrics of installed packages that are measured, each once."""
        chosen = self.evaluation.metric
        first = () if chosen is None or reference_of(chosen) is None else (chosen,)
        return tuple(dict.fromkeys((*first, *self.evaluation.metrics)))

    @property
    def registered(self) -> dict[str, str]:
        """What it asks of installed packages, ``package:name`` by key; ``[simulation]`` aside."""
        federation = self.federation
        named = {
            "model.network": self.model.network,
            "training.loss": self.training.loss or "",
            "data.augmentation": self.data.augmentation,
            "federation.strategy": federation.strategy,
            "federation.aggregation": federation.aggregation or "",
            **{f"evaluation.metrics {name}": name for name in self.package_metrics},
        }
        return {key: name for key, name in named.items() if reference_of(name) is not None}

    @property
    def contrasts(self) -> bool:
        """Whether a network is pretrained to tell images apart, and not to restore them."""
        return self.loss == "nt-xent"

    @property
    def fewest_in_batch(self) -> int:
        """How many examples a training step needs.

        Two where one alone cannot be normalised, or has no other to be told apart from.
        """
        if self.contrasts:
            return 2
        entry = NETWORKS.get(self.model.network)
        return 2 if entry and entry.flat and self.model.normalisation == "batch" else 1

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Spatial size the network is trained on: the patch, or else the image; None if free."""
        return self.training.patch_size or self.data.size

    def to_toml(self) -> str:
        """Return the study as a file that reads back to an equal study."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def to_json(self) -> str:
        """Return the study as one line that travels in a message."""
        return self.model_dump_json(exclude_none=True)
