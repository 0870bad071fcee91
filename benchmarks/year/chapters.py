"""What happens once in the year: studies that go on, readers, a hospital that comes and leaves."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.year.command import answer, command
from benchmarks.year.hospitals import FOLLOWED
from benchmarks.year.images import CLASSES
from wardround.client.clinic.review.cases import list_cases
from wardround.client.data.manifest.cells import location_text
from wardround.client.site.folder import open_site
from wardround.common.files.tables import read_kept_table
from wardround.common.models.model_folder import open_model_folder
from wardround.simulations.run_files.folder import MetricRow

BUDGET = 12
_MACHINE = ("--engine", "in-process", "--threads", "1")
_FIRST_READER_ERRS = 0.1


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run.

    Attributes:
        name: Of its folder.
        auroc: Mean over the hospitals, on their test patients.
    """

    name: str
    run: Path
    auroc: float

    @property
    def model(self) -> Path:
        """The folder of its model."""
        return self.run / "models" / "federated"

    @property
    def site(self) -> Path:
        """The followed hospital's folder."""
        return self.run / "sites" / FOLLOWED


def train(study: Path, run: Path) -> Trained:
    """Run a study in simulation."""
    answer("simulate", study, "--out", run, "--device", "cpu", *_MACHINE)
    return Trained(run.name, run, _mean_auroc(run))


def go_on(parent: Trained, manifest: Path, name: str, *changes: str) -> Trained:
    """Go on with a run on data that came since.

    Args:
        changes: Of keys of the study, ``KEY=VALUE``.
    """
    study = parent.run.with_name(f"{name}.toml")
    sets = [f"simulation.options.manifest={manifest}", *changes]
    words = [word for change in sets for word in ("--set", change)]
    answer("study", "continue", parent.run, "--out", study, *words)
    return train(study, parent.run.with_name(name))


def promote(trained: Trained, shelf: Path) -> list[dict[str, Any]]:
    """Put a run's model into use; return how far each site fell, or rose, by it."""
    return [*answer("runs", "promote", trained.run, "--shelf", shelf)["falls"]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What readers made of a queue.

    Attributes:
        cases: How many were shown to them.
        changed: How many labels are new or other than before.
        told: What the report says, a sentence each.
    """

    cases: int
    changed: int
    told: tuple[str, ...]


def read_queue(trained: Trained, unlabelled: Path, truths: Mapping[str, str]) -> Reading:
    """Have two readers look at the cases that a model is least sure of, and at as many by lot.

    The second reader, who is right, speaks last.
    """
    site = open_site(trained.site)
    shutil.copyfile(unlabelled, site.unlabelled_path)
    made = answer(
        *("site", "review", "queue", trained.site, "--model", trained.model),
        *("--by", "entropy", "--budget", BUDGET, "--device", "cpu"),
    )
    study = open_model_folder(trained.model).study
    shown = {case.id: case.examination for case in list_cases(site, study).cases}
    listed = Path(made["list"])
    with listed.open(newline="", encoding="utf-8") as stream:
        rows = [dict(row) for row in csv.DictReader(stream)]
    for row in rows:
        image = shown[row["case"]].images[0]
        row["label"] = truths[location_text(image)] if image is not None else ""
    hasty = [{**row, "label": _hasty(row["label"], at)} for at, row in enumerate(rows)]
    changed = 0
    for reader, said in (("A. Reader", hasty), ("B. Reader", rows)):
        path = trained.run / f"{reader[0]}.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*rows[0]])
            writer.writeheader()
            writer.writerows(said)
        took = answer("site", "review", "take", trained.site, path, "--reader", reader)
        changed = max(changed, int(took["changed"]))
    told = command("site", "review", "report", trained.site).splitlines()
    return Reading(len(rows), changed, tuple(line for line in told if line.strip()))


def _hasty(label: str, at: int) -> str:
    draw = np.random.default_rng((11, at))
    wrong = draw.random() < _FIRST_READER_ERRS
    return next(name for name in CLASSES if name != label) if wrong else label


@dataclass(frozen=True, slots=True)
class Left:
    """A hospital that left.

    Attributes:
        repeat: The run without it.
        rounds: How many were trained again.
        is_exact: Whether its model is to the bit that of a run that never had the hospital.
        certificate: Verified offline, and refused with one byte changed.
    """

    repeat: Trained
    rounds: int
    is_exact: bool
    certificate: Path


def withdraw(trained: Trained, site: str) -> Left:
    """Take a hospital out of a run: its rounds are repeated, and a certificate says so.

    Raises:
        YearFailedError: The certificate does not hold, or a forged one does, or the model that
            the hospital is in is not among the revoked ones.
    """
    run = trained.run.with_name(f"{trained.name}-without-{site}")
    said = answer("withdraw", trained.run, "--site", site, "--out", run, *_MACHINE)
    repeat, certificate = Trained(run.name, run, _mean_auroc(run)), Path(said["certificate"])
    verify = ("model", "verify-withdrawal")
    command(*verify, certificate, "--model", repeat.model)
    command(*verify, certificate, "--revoked", trained.model, codes=(1,))
    forged = certificate.with_name("forged.json")
    content = bytearray(certificate.read_bytes())
    content[len(content) // 2] ^= 1
    forged.write_bytes(content)
    command(*verify, forged, codes=(1, 2, 3))
    return Left(repeat, said["rounds"] - said["after_round"], bool(said["is_exact"]), certificate)


def _mean_auroc(run: Path) -> float:
    """Return the mean over the hospitals of the kept model's AUROC on their test patients."""
    found = [
        row.value
        for row in read_kept_table(run / "metrics.csv", MetricRow)
        if (row.model, row.split, row.metric, row.class_name) == ("federated", "test", "auroc", "")
        and row.round == -1
        and row.site != "all sites"
    ]
    return float(np.mean(found))
