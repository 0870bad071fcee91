"""What a run folder holds, read once; parts that an unfinished run lacks are empty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wardround.common.errors import InputError, StudyError
from wardround.common.files.tables import read_kept_table, refusing_damage
from wardround.common.statistics.interval import Interval
from wardround.common.study.loading import load_study
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.outcome_metrics import outcome_intervals
from wardround.simulations.evidence.intervals.run_intervals import (
    Labels,
    Named,
    mask_intervals,
    score_intervals,
)
from wardround.simulations.report.samples import Samples, read_samples
from wardround.simulations.report.verdict import Verdict, judge, sites_of
from wardround.simulations.run_files.detections import (
    FoundBoxes,
    read_detection_intervals,
    read_detections,
)
from wardround.simulations.run_files.folder import (
    FEDERATED,
    MetricRow,
    PrivacyRow,
    RunFacts,
    SplitRow,
    TrafficRow,
    read_facts,
)
from wardround.simulations.run_files.outcomes import Outcomes
from wardround.simulations.run_files.predictions import (
    Key,
    Masks,
    Predictions,
    Scores,
    read_predictions,
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RunContents:
    """A run folder in memory.

    Attributes:
        study: None if the study file is absent or refused; ``study_text`` then still shows it.
        samples: None if the run left none.
        scores: Of a classification, each model's scores by (model, site, split); may be empty.
        masks: Of a segmentation, each model's Dice and volumes likewise.
        detections: Of a detection, what each model found at each site; may be empty.
        intervals: Of test values, by (model, site, metric, class), from ``scores`` or ``masks``.
    """

    folder: Path
    facts: RunFacts
    study: Study | None
    study_text: str
    metrics: tuple[MetricRow, ...]
    traffic: tuple[TrafficRow, ...]
    split: tuple[SplitRow, ...]
    samples: Samples | None
    privacy: tuple[PrivacyRow, ...] = ()
    scores: Mapping[Key, Scores] = field(default_factory=dict)
    masks: Mapping[Key, Masks] = field(default_factory=dict)
    intervals: Mapping[Named, Interval] = field(default_factory=dict)
    outcomes: Mapping[Key, Outcomes] = field(default_factory=dict)
    detections: Mapping[str, Mapping[str, FoundBoxes]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The study's name, or the folder's."""
        return self.study.name if self.study else self.folder.resolve().name

    @property
    def metric(self) -> str:
        """The metric that the verdict is about."""
        if self.study:
            return self.study.metric
        measured = {row.metric for row in self.metrics}
        preferred = ("auroc", "dice", *METRICS)
        return next((name for name in preferred if name in measured), "loss")

    def verdict_on(self, metric: str) -> Verdict:
        """Return who gained by a metric; the study's own is judged by the study's margin."""
        is_own = self.study is not None and metric == self.study.metric
        margin = self.study.evaluation.margin if self.study is not None and is_own else None
        return judge(self.metrics, self.split, metric, margin)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites in their order."""
        return sites_of(self.metrics, self.split)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the study's order."""
        if self.study:
            return self.study.data.classes
        return tuple(dict.fromkeys(row.class_name for row in self.split if row.class_name))

    @property
    def exclusive_classes(self) -> bool:
        """Whether an examination has exactly one class, so that counts of classes add up."""
        if self.study is None:
            return False
        return self.study.task.classifies and not self.study.data.multi_label

    @property
    def own_data(self) -> bool:
        """Whether the images are the user's own, and not those of a public data set."""
        if "whose" in self.facts.data:
            return True
        # A run of an earlier version does not say it.
        return self.study is not None and self.study.simulation.data in ("folder", "nnunet")

    @property
    def rounds_done(self) -> int:
        """The last federated round that left a number; 0 if none did."""
        measured = [row.round for row in self.metrics if row.model == FEDERATED]
        sent = [row.round for row in self.traffic if row.model == FEDERATED]
        return max([0, *measured, *sent])

    @property
    def rounds_planned(self) -> int | None:
        """The rounds that the study asks for."""
        return self.study.federation.rounds if self.study else None


def read_contents(folder: Path) -> RunContents:
    """Read a run folder.

    Raises:
        InputError: It is not a run folder, or a file of it is damaged.
    """
    if not (folder / "run.json").is_file():
        msg = (
            f"{folder} is not a run folder: it has no run.json. "
            "Give the folder that a simulation printed when it started."
        )
        raise InputError(msg)
    study, study_text = _read_study(folder / "study.toml")
    said = Predictions({}, {}) if study is None else read_predictions(folder, study)
    return RunContents(
        folder=folder,
        facts=_checked(folder / "run.json", lambda: read_facts(folder)),
        study=study,
        study_text=study_text,
        metrics=_read_table(folder / "metrics.csv", MetricRow),
        traffic=_read_table(folder / "traffic.csv", TrafficRow),
        split=_read_table(folder / "split.csv", SplitRow),
        samples=read_samples(folder / "samples.npz"),
        privacy=_read_table(folder / "privacy.csv", PrivacyRow),
        scores=said.scores,
        masks=said.masks,
        intervals=_intervals(folder, study, said),
        outcomes=said.outcomes,
        detections={} if study is None else read_detections(folder, study.data.classes),
    )


def _intervals(folder: Path, study: Study | None, said: Predictions) -> Mapping[Named, Interval]:
    if study is None:
        return {}
    if study.task.column == "boxes":
        return read_detection_intervals(folder)
    if said.outcomes:
        return outcome_intervals(said.outcomes)
    if said.scores:
        labels = Labels(study.data.classes, study.data.multi_label)
        return score_intervals(said.scores, labels)
    return mask_intervals(said.masks, study.data.classes[1:])


Row = TypeVar("Row", MetricRow, TrafficRow, SplitRow, PrivacyRow)


def _read_table(path: Path, kind: type[Row]) -> tuple[Row, ...]:
    return tuple(read_kept_table(path, kind))


def _read_study(path: Path) -> tuple[Study | None, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return load_study(path), text
    except OSError:
        return None, ""
    except StudyError:  # a study of another version is still worth showing
        return None, text


def _checked(path: Path, read: Callable[[], Result]) -> Result:
    with refusing_damage(path):
        return read()
