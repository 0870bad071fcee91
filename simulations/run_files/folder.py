"""The run folder: what a simulation leaves behind, as typed rows in plain files.

======================= ==================================================================
``study.toml``          the resolved study
``run.json``            :class:`RunFacts`: command, environment, status, seconds
``sites/NAME/``         a site folder each (``site.toml``, ``manifest.csv``)
``split.csv``           :class:`SplitRow`: who holds what
``metrics.csv``         :class:`MetricRow`: every measured number
``predictions.csv``     :class:`ScoreRow`: each model's score of each examination and class
``cases.csv``           :class:`CaseRow`: of a segmentation, each examination's Dice and volumes
``lesions.csv``         :class:`LesionRow`: of a segmentation, each lesion of the test patients
``detections.csv``      :class:`DetectionRow`: of a detection, counts of scores of the boxes found
``detection-intervals.csv``
                        :class:`DetectionIntervalRow`: of a detection, metrics with intervals
``explanations/``       maps of predictions and their checks (``wardround explain-predictions``)
``groups.csv``          :class:`GroupRow`: the groups of each examination, of a study with subgroups
``waves.csv``           :class:`WaveRow`: each model on each wave of data, of a study with waves
``contributions.csv``   :class:`ContributionRow`: each site's part in the federated model
``updates/``            the updates of the federated rounds, of which that is told
``traffic.csv``         :class:`TrafficRow`: bytes and seconds, a row a site and round
``privacy.csv``         :class:`PrivacyRow`: what each site's ledger was charged
``checkpoints/``        one folder a committed round
``models/NAME.safetensors``  the final models: ``federated``, ``pooled``, ``local-SITE``,
                        ``without-privacy``
``models/NAME/``        each as a model folder, with which ``wardround predict`` works; where each
                        site has a model of its own, ``federated-SITE``
``samples.npz``         test images with what the models made of them
``failures.npz``        of a segmentation, likewise the worst test images of each site
``log.jsonl``           one line an event
``run.lock``            held by the process that works on the run
``report.html``         the report; ``.pdf``, ``.json`` and ``.md`` where they were asked for
``model-card.md``       the card of the federated model, and ``.json``
``data-sheet.md``       what the data are, and ``.json``
======================= ==================================================================
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Literal

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.lock import open_lock
from wardround.common.runtime.fields import of_its_types
from wardround.common.runtime.system.files import is_held, lock

Status = Literal["running", "finished", "interrupted", "failed"]
ALL_SITES = "all sites"
FEDERATED = "federated"
POOLED = "pooled"
_LOCK_FILE = "run.lock"
_LOCK_SECONDS, _LOOK_SECONDS = 2.0, 0.05  # the workers of a killed run end within that
PAIRED = "paired"  # in the place of a split: two models compared patient by patient
UNPROTECTED = "without-privacy"  # the same federation, in a study that promises privacy


def local_model(site: str) -> str:
    """Return the name of the model that one site trained alone."""
    return f"local-{site}"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One measured number.

    Attributes:
        model: ``federated``, ``pooled``, ``local-SITE`` or ``without-privacy``.
        round: The round after which the model was measured: 0 is the initial model;
            -1 the model that is kept (the best one), on the test patients.
        site: Whose patients, or ``all sites`` for the sites' sums merged.
        split: ``validation`` or ``test``; ``paired`` where the value is not the model's own but the
            federated model's gain over it on the same test patients. ``support`` is then how many
            these are, and ``standard_error``, times Student's t with one degree of freedom less,
            the half width of its 95 % interval.
        metric: A key of the catalogue's METRICS.
        class_name: One class, or "" for the metric over all classes.
        value: NaN where it is not defined (a class without cases).
        support: Examinations (or cases) behind the value.
        error_bound: Largest possible error from binning scores; 0 where exact.
        standard_error: Of the value as a mean over cases, each slice of a patient a case of its
            own; 0 where it was not computed.
    """

    model: str
    round: int
    site: str
    split: str
    metric: str
    class_name: str
    value: float
    support: int
    error_bound: float = 0.0
    standard_error: float = 0.0


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """What one site sent and received in one round, and how long it took."""

    model: str
    round: int
    site: str
    bytes_down: int
    bytes_up: int
    seconds: float
    updates: int


@dataclass(frozen=True, slots=True)
class PrivacyRow:
    """What one site's ledger says of a part of a data set at the end of a run.

    Attributes:
        part: Whose account it is: the patients of "train", "validation" or "test".
        epsilon: Of everything charged, at ``delta``.
        cap: The lifetime cap of the site's policy.
        charged: Answers that were charged.
        released: Answers that left.
        steps: Private steps of what was charged; an evaluation is one.
    """

    site: str
    part: str
    epsilon: float
    delta: float
    cap: float
    charged: int
    released: int
    steps: int


@dataclass(frozen=True, slots=True)
class SplitRow:
    """How many examinations and patients of a class a site holds in a split.

    Attributes:
        class_name: A class, or "" for the whole split.
    """

    site: str
    split: str
    class_name: str
    examinations: int
    patients: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How a run came about.

    Attributes:
        environment: E.g. ``{"python": "3.11.7", "torch": "2.13.0", "cores": "2", ...}``.
        seconds: Wall time of each part, e.g. ``{"data": 1.2, "federated": 60.1}``.
        notes: Sentences the report must show, e.g. a class that a site does not hold.
        data: Name, licence, citation and home page of the data set.
        best_round: The round whose model is kept; -1 before there is one.
        length_unit: Of distances between surfaces: pixels or voxels where no file gives its size.
        missed: In how many federated rounds each site was asked to train and did not.
    """

    wardround: str
    command: tuple[str, ...]
    digest: str
    seed: int
    started: str
    status: Status = "running"
    finished: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data: dict[str, str] = field(default_factory=dict)
    best_round: int = -1
    parameters: int = 0
    length_unit: str = "mm"
    missed: dict[str, int] = field(default_factory=dict)


def write_facts(folder: Path, facts: RunFacts) -> None:
    """Write ``run.json``, replacing it at once."""
    text = json.dumps(asdict(facts), indent=2) + "\n"
    replace_file(folder / "run.json", text, BY_UMASK, durable=False)


def read_facts(folder: Path) -> RunFacts:
    """Read ``run.json``; a run whose process has gone was interrupted, whatever it last wrote.

    Raises:
        InputError: The folder holds no run, or one that this version cannot read.
    """
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        facts = RunFacts(
            **{
                **content,
                "command": tuple(content["command"]),
                "notes": tuple(content["notes"]),
            }
        )
        facts = of_its_types(facts)
    except OSError:
        msg = f"{folder} holds no run: give the folder that 'wardround simulate --out' wrote."
        raise InputError(msg) from None
    except (ValueError, KeyError, TypeError) as error:
        msg = (
            f"{folder / 'run.json'} cannot be read ({type(error).__name__}): it was changed, or "
            "another version of wardround wrote it. Start a new run."
        )
        raise InputError(msg) from None
    if facts.status == "running" and not is_held(folder / _LOCK_FILE):
        return replace(facts, status="interrupted")
    return facts


@contextmanager
def working_on(folder: Path) -> Iterator[None]:
    """Be the only process that works on a run or sweep; others see that there is one.

    A disk that knows no locks does without.

    Raises:
        InputError: Another process works on it.
        OSError: The folder cannot be written.
    """
    descriptor = open_lock(folder / _LOCK_FILE)
    try:
        if not _is_taken(descriptor):
            msg = f"another process works on {folder}: wait until it has ended, or end it first."
            raise InputError(msg)
        yield
    finally:
        os.close(descriptor)


def _is_taken(descriptor: int) -> bool:
    until = time.monotonic() + _LOCK_SECONDS
    try:
        while not lock(descriptor, wait=False):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_SECONDS)
    except OSError:
        return True
    return True


def unused_folder(name: str) -> Path:
    """Return a folder of that name and this second below ``runs/``, which nobody else gets.

    It is made, and empty: two runs that begin in one second both get one.
    """
    first = Path("runs") / f"{name.replace(' ', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:  # nothing can be written here, which new_folder says
            pass
        return folder
    raise AssertionError  # pragma: no cover # the numbers do not end


def new_folder(folder: Path, remedy: str) -> None:
    """Make a folder that must be new or empty.

    Raises:
        InputError: It holds something, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"cannot write to {folder} ({error.strerror}): choose another --out."
        raise InputError(msg) from None
    if not is_empty:
        msg = f"{folder} is not empty: {remedy}."
        raise InputError(msg)


def value_of(
    rows: Sequence[MetricRow], model: str, site: str, metric: str, class_name: str = ""
) -> float:
    """Return the kept model's test value, NaN if it was not measured."""
    for row in rows:
        found = (row.model, row.site, row.metric, row.class_name, row.round, row.split)
        if found == (model, site, metric, class_name, -1, "test"):
            return row.value
    return float("nan")
