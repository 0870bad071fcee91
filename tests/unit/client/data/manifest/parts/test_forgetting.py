"""Patients who are taken out of a manifest, and stay out."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.support.hospitals.review_ward import (
    CLASSIFIES,
    SEGMENTS,
    desk_of,
    review_site,
    study_of,
)
from tests.support.stage import table_study

from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.data.manifest.parts.forgetting import forget_patients, read_identifiers
from wardround.client.data.manifest.table import read_table
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError, InputError

STUDY = table_study("forgetting", rounds=1)


def site_in(folder: Path, separator: str = ",") -> Site:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.toml").write_text('name = "north"\n')
    lines = [separator.join(("patient", "label", "split", "a", "b"))]
    for number in range(20):
        split = ("train", "validation", "test")[number // 2 % 3]
        cells = (f"P{number}", str(number % 2), split, str(number), "0.5")
        lines.append(separator.join(cells))
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return open_site(folder)


def patients_of(site: Site) -> set[str]:
    found = open_cohorts(site, STUDY)
    cohorts = (found.train, found.validation, found.test)
    return {one.patient for cohort in cohorts for one in cohort.examinations}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_who_is_forgotten_is_in_no_cohort_and_cannot_come_back_unnoticed(
    tmp_path: Path, separator: str
) -> None:
    site = site_in(tmp_path / "north", separator)
    whole = site.manifest_path.read_bytes()
    before = patients_of(site)
    found = forget_patients(site, ("P3", "P4", "nobody"))
    assert (found.patients, found.rows, found.unknown, found.used) == (2, 2, 1, 2)
    assert patients_of(open_site(site.folder)) == before - {"P3", "P4"}
    assert read_table(site.manifest_path).separator == separator
    kept = (site.folder / "parts" / "forgotten.jsonl").read_text()
    assert "P3" not in kept
    site.manifest_path.write_bytes(whole)  # exported anew from the hospital's systems
    with pytest.raises(DataError, match="names 2 of the patients") as error:
        patients_of(open_site(site.folder))
    assert "P3" not in str(error.value)
    assert forget_patients(site, ("P3", "P4")).used == 2, "said again, where it was not heard"
    assert forget_patients(site, ("nobody", "P003")).used == 0, "no model knows them"
    assert patients_of(open_site(site.folder)) == before - {"P3", "P4"}


def test_patients_of_a_site_that_has_trained_nothing_are_forgotten_too(tmp_path: Path) -> None:
    site = site_in(tmp_path / "north")
    assert forget_patients(site, ("P0",)).patients == 1
    assert "P0" not in patients_of(site)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20), max_size=10))
def test_a_file_of_identifiers_is_read_as_lines(names: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "left.txt"
        place.write_bytes("\n".join(names).encode("utf-8", "surrogatepass"))
        try:
            found = read_identifiers(place)
        except InputError:
            return
        assert len(set(found)) == len(found) > 0
        assert all(one == one.strip() for one in found)


def test_a_manifest_without_patients_is_refused(tmp_path: Path) -> None:
    site = site_in(tmp_path / "north")
    site.manifest_path.write_text("name,label\nx,0\n")
    with pytest.raises(DataError, match="no column 'patient'"):
        forget_patients(site, ("x",))


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_identifiers(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(InputError, match="names 0 patients"):
        read_identifiers(tmp_path / "empty.txt")


def test_who_is_only_in_the_list_of_unlabelled_is_forgotten_with_what_readers_said(
    tmp_path: Path,
) -> None:
    study = study_of(CLASSIFIES)
    site = review_site(tmp_path / "north", unlabelled=4)
    desk = desk_of(site, study, budget=40)
    case = next(one for one in desk.cases.values() if one.row > desk.listed.last_row)
    desk.hand_in("AB", [desk.label_opinion(case.id, "abnormal")], "command")
    patient = case.examination.patient
    assert patient in {one.patient for one in open_manifest(site, study).examinations}

    found = forget_patients(site, (patient,))

    assert (found.patients, found.rows, found.unknown) == (1, 1, 0)
    assert patient not in {one.patient for one in open_manifest(site, study).examinations}
    assert patient not in site.unlabelled_path.read_text()
    open_cohorts(open_site(site.folder), study)  # and nobody is refused for them


def test_masks_that_readers_drew_of_the_forgotten_are_deleted_and_of_others_kept(
    tmp_path: Path,
) -> None:
    study = study_of(SEGMENTS)
    site = review_site(tmp_path / "north", "mask")
    desk = desk_of(site, study, budget=40)
    leaving, staying = list(desk.cases.values())[:2]
    opinions = []
    for number, case in enumerate((leaving, staying)):
        mask = np.zeros((16, 16), np.uint8)
        mask[: number + 2] = 1
        content = io.BytesIO()
        Image.fromarray(mask).save(content, "PNG")
        opinions.append(desk.mask_opinion(case.id, content.getvalue(), ".png"))
    desk.hand_in("AB", opinions, "command")
    folder = site.corrections_path.with_name("masks")
    assert {path.name for path in folder.iterdir()} == {one.new for one in opinions}

    forget_patients(site, (leaving.examination.patient,))

    assert [path.name for path in folder.iterdir()] == [opinions[1].new]
    open_cohorts(open_site(site.folder), study)


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("Mu\u0308ller", "M\u00fcller"),  # a manifest that was made on a Mac
        ("M\u00fcller", "Mu\u0308ller"),
        ("P\u00a0 3x", "P 3x"),
        ("P3\u200bx", "P3x"),
    ],
)
def test_a_patient_is_forgotten_however_the_letters_are_composed(
    tmp_path: Path, written: str, typed: str
) -> None:
    site = site_in(tmp_path / "north")
    whole = site.manifest_path.read_text().replace("P3,", f"{written},")
    site.manifest_path.write_text(whole, encoding="utf-8")
    before = patients_of(open_site(site.folder))
    listed = tmp_path / "left.txt"
    listed.write_text(typed, encoding="utf-8")
    found = forget_patients(site, read_identifiers(listed))
    assert (found.patients, found.rows, found.unknown, found.used) == (1, 1, 0, 1)
    assert len(patients_of(open_site(site.folder))) == len(before) - 1
    site.manifest_path.write_text(whole, encoding="utf-8")
    with pytest.raises(DataError, match="names 1 of the patients who were taken out"):
        patients_of(open_site(site.folder))
