"""The splitter's folders, read back by the code that runs in a hospital."""

from pathlib import Path

import numpy as np
import pytest

from wardround.client.data.manifest.manifest import read_manifest
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.datasets.catalogue import load_dataset
from wardround.simulations.datasets.examinations import Examinations
from wardround.simulations.sites.assignment import Assignment, with_splits
from wardround.simulations.sites.site_folders import write_pooled_site, write_sites
from wardround.simulations.sites.split import split_examinations

STUDIES = Path(__file__).parents[3] / "simulations" / "studies"
Prepared = tuple[Examinations, Assignment, Study]


@pytest.fixture
def brains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    changes = {"data.size": [24, 24], "simulation.split": "iid"}
    study = with_changes(load_study(STUDIES / "brain-tissue.toml"), changes)
    found = load_dataset("brain-tissue", {"patients": 60, "slices": 2}, None, study)
    return found, split_examinations(found, study), study


def test_a_hospital_reads_what_the_splitter_wrote(brains: Prepared, tmp_path: Path) -> None:
    examinations, assignment, study = brains
    folders = write_sites(examinations, assignment, study, tmp_path / "sites", skip_unreadable=True)
    assert [folder.name for folder in folders] == list(assignment.sites)
    seen: set[str] = set()
    for folder in folders:
        site = open_site(folder)
        assert site.name == folder.name
        assert site.settings.skip_unreadable
        rows = read_manifest(site, study)
        expected = assignment.rows_of(site.name, examinations)
        assert [row.patient for row in rows] == [row.patient for row in expected]
        assert all(row.images[0].path.is_absolute() for row in rows)
        parts = partition_patients(rows, study, site).parts
        assert all(parts.values())
        patients = {row.patient for row in rows}
        assert not patients & seen
        seen |= patients
    assert len(seen) == 60


def test_hospitals_differ_in_their_scanners(brains: Prepared, tmp_path: Path) -> None:
    folders = write_sites(*brains, tmp_path / "sites")
    settings = [open_site(folder).settings for folder in folders]
    assert len({one.shift for one in settings}) == 4
    assert len({one.shift_seed for one in settings}) == 4
    assert [shift.kind for shift in settings[0].shift] == [
        shift.kind for shift in brains[2].simulation.shift
    ]


def test_the_pooled_site_keeps_each_rows_scanner_and_split(
    brains: Prepared, tmp_path: Path
) -> None:
    examinations, assignment, study = brains
    folders = write_sites(*brains, tmp_path / "sites")
    pooled = open_site(write_pooled_site(*brains, tmp_path / "pooled"))
    rows = read_manifest(pooled, study)
    assert len(rows) == len(examinations.rows)
    standalone = {site.name: site.settings for site in map(open_site, folders)}
    for row in rows:
        scanner = pooled.settings.scanners[row.scanner]
        own = standalone[assignment.site_of[row.patient]]
        assert (scanner.shift, scanner.seed) == (own.shift, own.shift_seed)
    split_of = {row.patient: row.split for row in with_splits(examinations, assignment).rows}
    for split, part in partition_patients(rows, study, pooled).parts.items():
        assert {split_of[row.patient] for row in part} == {split}


def test_writing_twice_keeps_the_state_and_refuses_other_examinations(
    brains: Prepared, tmp_path: Path
) -> None:
    examinations, _, study = brains
    folder = write_sites(*brains, tmp_path / "sites")[0]
    (folder / "state").mkdir()
    write_sites(*brains, tmp_path / "sites")
    assert (folder / "state").is_dir()
    other = split_examinations(examinations, with_changes(study, {"simulation.seed": 5}))
    with pytest.raises(InputError, match="already holds a site with other examinations"):
        write_sites(examinations, other, study, tmp_path / "sites")
    assert not list((tmp_path / "sites").rglob("*.part"))


@pytest.mark.parametrize("name", ["pneumonia-xray", "hippocampus", "skin-lesions", "heart-disease"])
def test_every_built_in_study_makes_sites_that_a_hospital_can_read(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    study = load_study(STUDIES / f"{name}.toml")
    simulation = study.simulation
    examinations = load_dataset(simulation.data, simulation.options, shared_data, study)
    assignment = split_examinations(examinations, study)
    folders = write_sites(examinations, assignment, study, tmp_path)
    sizes = [len(read_manifest(open_site(folder), study)) for folder in folders]
    assert sum(sizes) == len(examinations.rows)
    for folder in folders:
        site = open_site(folder)
        parts = partition_patients(read_manifest(site, study), study, site).parts
        assert parts["train"]
        assert parts["test"]


def test_a_pooled_table_and_its_sites_agree(tmp_path: Path, shared_data: Path) -> None:
    study = load_study(STUDIES / "heart-disease.toml")
    examinations = load_dataset("heart-disease", {}, shared_data, study)
    assignment = split_examinations(examinations, study)
    pooled = open_site(write_pooled_site(examinations, assignment, study, tmp_path / "pooled"))
    rows = read_manifest(pooled, study)
    assert "scanner" not in pooled.manifest_path.read_text().splitlines()[0]
    ages = np.array([float(row.covariates[0]) for row in rows])
    assert 28 <= ages.min() < ages.max() <= 77  # the youngest and the oldest of the four tables
