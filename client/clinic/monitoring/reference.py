"""The reference: images that a model was not trained on, as they were when it began its work."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wardround.client.clinic.inference.inputs import Input, find_inputs
from wardround.client.clinic.inference.predictor import Predictor
from wardround.client.clinic.monitoring.gathering import Gathered, Progress, gather, place_of
from wardround.client.clinic.monitoring.labels import truth_of_label
from wardround.client.clinic.monitoring.periods import Every
from wardround.client.clinic.monitoring.store import (
    MonitorFolder,
    Reference,
    Truth,
    begin_monitor,
    keyed,
    new_secret,
)
from wardround.client.data.manifest.examination import Examination, SplitName
from wardround.client.data.manifest.manifest import read_manifest
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.site.folder import Site
from wardround.common.errors import InputError
from wardround.common.study.study import Study

LEAST_CASES, ADVISED_CASES = 20, 100


@dataclass(frozen=True, slots=True)
class Options:
    """How a site is monitored.

    Attributes:
        every: The kind of period.
        alarms_a_year: How many false alarms are expected in a year without any change.
    """

    every: Every = "week"
    alarms_a_year: float = 0.25

    def __post_init__(self) -> None:
        if not 0.01 <= self.alarms_a_year <= 12:
            msg = (
                f"{self.alarms_a_year:g} false alarms a year cannot be rationed: give 0.01 to 12; "
                "with 0.25, few quiet years have a second one."
            )
            raise InputError(msg)


@dataclass(frozen=True, slots=True)
class Began:
    """A reference that was set.

    Attributes:
        labelled: How many of its cases have a label.
    """

    monitor: MonitorFolder
    gathered: Gathered
    labelled: int


def set_reference(
    site: Site,
    named: tuple[Predictor, Path],
    inputs: Sequence[Input],
    options: Options,
    progress: Progress,
    labels: dict[int, tuple[float, ...]] | None = None,
) -> Began:
    """Set what every period is held against; an earlier reference of this model is put aside.

    Args:
        named: The model, and where it lies.
        inputs: The images.
        labels: By row of the manifest, where these are known.

    Raises:
        InputError: Fewer than twenty images can be used.
    """
    predictor, folder = named
    secret = new_secret()
    gathered = gather(predictor, inputs, lambda text: keyed(secret, text), progress)
    if len(gathered.cases) < LEAST_CASES:
        said = f" The first that cannot be used: {gathered.failed[0][1]}" if gathered.failed else ""
        msg = (
            f"{len(gathered.cases)} images can be used of {len(inputs)}, and a reference needs at "
            f"least {LEAST_CASES}, better {ADVISED_CASES} or more: name more images.{said}"
        )
        raise InputError(msg)
    study = predictor.study
    reference = Reference(
        model=predictor.contract.name,
        digest=predictor.digest,
        folder=str(folder.resolve()),
        study=study.name,
        task=study.study.task,
        classes=tuple(study.data.classes),
        multi_label=study.data.multi_label,
        every=options.every,
        alarms_a_year=options.alarms_a_year,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    monitor = MonitorFolder(begin_monitor(site, reference, gathered.cases, secret))
    truths = _truths(inputs, gathered, labels or {}, (study, monitor))
    monitor.add_truths(truths)
    return Began(monitor, gathered, len(truths))


def _truths(
    inputs: Sequence[Input],
    gathered: Gathered,
    labels: dict[int, tuple[float, ...]],
    of: tuple[Study, MonitorFolder],
) -> list[Truth]:
    study, monitor = of
    known = {case.key for case in gathered.cases}
    found = []
    for one in inputs:
        label = labels.get(one.row)
        key = monitor.key_of(place_of(one))
        if label is not None and key in known:
            truth = truth_of_label(key, label, study)
            found += [truth] if truth is not None else []
    return found


def held_out_inputs(
    site: Site, study: Study, splits: Sequence[SplitName]
) -> tuple[list[Input], dict[int, tuple[float, ...]]]:
    """Return the site's own examinations of these splits, and their labels by row.

    The splits are those that the site trained by, where it did.

    Raises:
        InputError: The manifest cannot be used, or a split is empty.
    """
    examinations = read_manifest(site, study)
    parts = partition_patients(examinations, study, site, keeps=False).parts
    chosen: dict[int, Examination] = {e.row: e for split in splits for e in parts[split]}
    inputs = [one for one in find_inputs([str(site.manifest_path)], study) if one.row in chosen]
    labels = {row: e.label for row, e in chosen.items() if e.label is not None}
    if not inputs:
        msg = (
            f"the manifest of {site.folder} has no examination of {' and '.join(splits)}: name "
            "images that the model was not trained on, or another --split."
        )
        raise InputError(msg)
    return inputs, labels
