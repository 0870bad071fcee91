"""Readers' corrections laid over a manifest: what counts, and what is passed over in words."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.hospitals.review_ward import CLASSIFIES, desk_of, review_site, study_of

from wardround.client.clinic.review.cases import list_cases
from wardround.client.data.manifest.corrections import case_ids, read_case_key
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.data.manifest.table import read_table
from wardround.client.data.source_files import SourceFiles, lists_of, mark_of
from wardround.client.site.folder import Site
from wardround.common.errors import DataError, InputError
from wardround.common.study.study import Study

STUDY = study_of(CLASSIFIES)


def _found(site: Site, study: Study = STUDY) -> dict[str, Examination]:
    return {one.patient: one for one in open_manifest(site, study).examinations}


def _corrected(folder: Path, unlabelled: int = 0) -> tuple[Site, str, str]:
    """Return a site, and a case that was labelled abnormal, with its patient."""
    site = review_site(folder, unlabelled=unlabelled)
    desk = desk_of(site, STUDY, budget=40)
    case = next(
        one
        for one in desk.cases.values()
        if (one.row > desk.listed.last_row if unlabelled else one.own == "normal")
    )
    desk.hand_in("AB", [desk.label_opinion(case.id, "abnormal")], "command")
    return site, case.id, case.examination.patient


def test_the_last_word_counts_and_the_file_stays(tmp_path: Path) -> None:
    site, case, patient = _corrected(tmp_path / "north")
    assert _found(site)[patient].label == (1.0,)
    desk = desk_of(site, STUDY, "second", 40)
    desk.hand_in("CD", [desk.label_opinion(case, "normal")], "command")
    assert _found(site)[patient].label == (0.0,)
    (note,) = (one for one in open_manifest(site, STUDY).notes if "corrections" in one)
    assert note.startswith("readers' corrections count for 1 rows")


def test_an_order_of_rows_means_nothing(tmp_path: Path) -> None:
    site, _, patient = _corrected(tmp_path / "north")
    head, *rows = site.manifest_path.read_text().splitlines()
    site.manifest_path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert _found(site)[patient].label == (1.0,)


def test_a_case_of_both_lists_has_one_name(tmp_path: Path) -> None:
    site, case, patient = _corrected(tmp_path / "north", unlabelled=4)
    assert _found(site)[patient].label == (1.0,)
    assert _found(site)[patient].split == "train"
    image = _found(site)[patient].held_images[0].path.relative_to(site.data_root)
    with site.manifest_path.open("a") as stream:  # the hospital has labelled it itself meanwhile
        stream.write(f"{patient},{image},normal,test\n")
    found = _found(site)[patient]
    assert (found.label, found.split) == ((1.0,), "test")
    assert [one.id for one in list_cases(site, STUDY).cases].count(case) == 2
    key = read_case_key(site)
    assert key is not None
    assert case in case_ids(read_table(site.manifest_path), key)


def test_a_row_that_was_taken_out_stays_out(tmp_path: Path) -> None:
    site, _, patient = _corrected(tmp_path / "north")
    rows = site.manifest_path.read_text().splitlines()
    site.manifest_path.write_text("\n".join(r for r in rows if patient not in r) + "\n")
    assert patient not in _found(site)
    assert any("belong to no row any more" in one for one in open_manifest(site, STUDY).notes)


def test_a_label_that_another_study_does_not_know_is_passed_over(tmp_path: Path) -> None:
    site, _, patient = _corrected(tmp_path / "north")
    other = study_of({**CLASSIFIES, "data": {**CLASSIFIES["data"], "classes": ["normal", "other"]}})
    text = site.manifest_path.read_text().replace("abnormal", "other")
    site.manifest_path.write_text(text)
    assert _found(site, other)[patient].label == (0.0,)
    assert any("for other classes" in one for one in open_manifest(site, other).notes)


def test_a_correction_is_seen_as_a_change_of_the_data(tmp_path: Path) -> None:
    site = review_site(tmp_path / "north")
    desk = desk_of(site, STUDY)
    files, mark = SourceFiles(lists_of(site)), mark_of(site)
    assert not files.have_changed(images=False)
    desk.hand_in("AB", [desk.label_opinion(next(iter(desk.cases)), "abnormal")], "command")
    assert files.have_changed(images=False)
    assert mark_of(site) != mark


def test_a_test_patient_whose_label_is_corrected_stays_a_test_patient(tmp_path: Path) -> None:
    site = review_site(tmp_path / "north")
    desk = desk_of(site, STUDY)
    held = next(one for one in desk.listed.cases if one.part == "test")
    with pytest.raises(InputError, match="has no case of that name"):
        desk.label_opinion(held.id, "abnormal")
    entries = (*desk.queue.entries, replace(desk.queue.entries[0], case=held.id))
    wide = replace(desk, queue=replace(desk.queue, entries=entries))
    wide.hand_in("AB", [wide.label_opinion(held.id, "abnormal")], "command")
    parts = partition_patients(open_manifest(site, STUDY).examinations, STUDY, site).parts
    assert held.examination.patient in {one.patient for one in parts["test"]}
    assert held.examination.patient not in {one.patient for one in parts["train"]}


def test_rows_of_the_unlabelled_list_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    site = review_site(tmp_path / "north", unlabelled=2)
    with site.unlabelled_path.open("a") as stream:
        stream.write(",images/x.png\nP9,\n")
    listed = list_cases(site, STUDY)
    assert listed.unusable == 2
    assert len(listed.cases) == 32
    site.unlabelled_path.write_text("name,image\nP1,a.png\n")
    with pytest.raises(DataError, match="lacks the column patient"):
        list_cases(site, STUDY)


def test_an_unlabelled_image_of_a_test_patient_is_never_shown(tmp_path: Path) -> None:
    site = review_site(tmp_path / "north", unlabelled=1)
    with site.unlabelled_path.open("a") as stream:
        stream.write("CANARYPATIENT009,images/CANARYFILE001.png\n")  # the tenth is for testing
    listed = list_cases(site, STUDY)
    assert [one.part for one in listed.cases[-2:]] == ["train", "test"]
    assert len(desk_of(site, STUDY, budget=99).queue.entries) == 22


def test_a_table_without_its_key_trains_nobody(tmp_path: Path) -> None:
    site, _, _ = _corrected(tmp_path / "north")
    site.corrections_path.with_name("key").unlink()
    with pytest.raises(DataError, match="the file key beside it is gone"):
        open_manifest(site, STUDY)
