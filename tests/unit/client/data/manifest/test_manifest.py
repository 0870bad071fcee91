from pathlib import Path
from typing import Any

import pytest

from wardround.client.data.manifest.examination import Location
from wardround.client.data.manifest.manifest import open_manifest, read_manifest
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study

CLASSES = ["normal", "pneumonia"]


def study_of(task: str = "classification", **data: Any) -> Study:
    network = "small-cnn" if task == "classification" else "unet"
    return parse_study(
        {
            "study": {"name": "chest", "task": task},
            "data": {"classes": CLASSES, "size": [32, 32], **data},
            "model": {"network": network},
        }
    )


def site_of(folder: Path, manifest: str, settings: str = "", encoding: str = "utf-8") -> Site:
    (folder / "site.toml").write_text(f'name = "ward"\n{settings}')
    (folder / "manifest.csv").write_text(manifest, encoding=encoding)
    for name in ("a.png", "b.png", "c.png", "set.npz", "set.npy"):
        (folder / name).touch()
    return open_site(folder)


def test_a_manifest_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    text = "patient, image ,label,ward\r\np1,a.png,pneumonia,3\r\n\r\np2,b.png,0,4\r\n"
    site = site_of(tmp_path, text, encoding="utf-8-sig")
    first, second = read_manifest(site, study_of())
    assert (first.row, first.patient, first.label, first.split) == (2, "p1", (1,), None)
    assert first.images == (Location(site.data_root / "a.png"),)
    assert (second.row, second.label) == (4, (0,))


def test_items_of_array_files_are_located(tmp_path: Path) -> None:
    rows = "p1,set.npz#train_images#17,0\np2,set.npy#3,0\np3,set.npz#4,0\np4,set.npz#all,0\n"
    site = site_of(tmp_path, "patient,image,label\n" + rows)
    places = [e.images[0] for e in read_manifest(site, study_of())]
    npz, npy = site.data_root / "set.npz", site.data_root / "set.npy"
    assert places == [
        Location(npz, "train_images", 17),
        Location(npy, None, 3),
        Location(npz, None, 4),
        Location(npz, "all", None),
    ]


def test_absolute_paths_and_a_data_root_are_followed(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    (images / "x.png").touch()
    site = site_of(
        tmp_path,
        f"patient,image,label\np1,x.png,0\np2,{tmp_path / 'a.png'},0\n",
        'data_root = "pictures"',
    )
    paths = [e.images[0].path for e in read_manifest(site, study_of())]
    assert paths == [images / "x.png", tmp_path / "a.png"]


def test_one_file_may_hold_all_channels_of_a_study(tmp_path: Path) -> None:
    text = "patient,image,label\np1,a.nii.gz,0\np2,b.nii,1\n"
    for name in ("a.nii.gz", "b.nii"):
        (tmp_path / name).touch()
    study = study_of(channels=["flair", "t1"])
    rows = read_manifest(site_of(tmp_path, text), study)
    packed = rows[0].images[0].path
    assert rows[0].images == (Location(packed, None, 0, 2), Location(packed, None, 1, 2))
    with pytest.raises(DataError, match="names one file for 2 channels in row 3: name a NIfTI"):
        read_manifest(site_of(tmp_path, text.replace("b.nii", "b.png")), study)


def test_a_volume_of_a_nifti_file_is_located_by_its_number(tmp_path: Path) -> None:
    text = "patient,image,label\np1,a.nii.gz#3,0\np2,b#1.nii,1\np3,a.nii.gz#1/4,1\n"
    for name in ("a.nii.gz", "b#1.nii"):
        (tmp_path / name).touch()
    site = site_of(tmp_path, text)
    assert [e.images[0] for e in read_manifest(site, study_of())] == [
        Location(site.data_root / "a.nii.gz", None, 3),
        Location(site.data_root / "b#1.nii"),
        Location(site.data_root / "a.nii.gz", None, 1, 4),
    ]


def test_channels_are_columns_in_the_order_of_the_study(tmp_path: Path) -> None:
    site = site_of(tmp_path, "patient,image.t2,image.t1,label\np1,a.png,b.png,0\n")
    (examination,) = read_manifest(site, study_of(channels=["t1", "t2"]))
    assert [place.path.name for place in examination.images] == ["b.png", "a.png"]


def test_the_only_channel_may_simply_be_called_image(tmp_path: Path) -> None:
    site = site_of(tmp_path, "patient,image,label\np1,a.png,0\n")
    assert len(read_manifest(site, study_of(channels=["t1"]))) == 1


@pytest.mark.parametrize(
    ("cell", "label"),
    [("normal;pneumonia", (1, 1)), ("1|0", (1, 1)), ("1", (0, 1)), ("none", (0, 0))],
)
def test_several_labels_stand_in_one_cell(
    tmp_path: Path, cell: str, label: tuple[int, ...]
) -> None:
    site = site_of(tmp_path, f"patient,image,label\np1,a.png,{cell}\n")
    assert read_manifest(site, study_of(multi_label=True))[0].label == label


@pytest.mark.parametrize(
    ("cell", "split"),
    [("Train", "train"), ("training", "train"), ("val", "validation"), ("valid", "validation"),
     ("validation", "validation"), ("test", "test")],
)  # fmt: skip
def test_splits_go_by_their_usual_names(tmp_path: Path, cell: str, split: str) -> None:
    site = site_of(tmp_path, f"patient,image,label,split\np1,a.png,0,{cell}\n")
    assert read_manifest(site, study_of())[0].split == split


def test_a_row_names_its_simulated_scanner(tmp_path: Path) -> None:
    text = "patient,image,label,scanner\np1,a.png,0,old\np2,a.png,0,\np3,a.png,0,new\n"
    site = site_of(tmp_path, text, "[scanners.old]\nseed = 3\n")
    with pytest.raises(DataError, match=r"column scanner names none of site.toml in row 4"):
        read_manifest(site, study_of())
    (tmp_path / "manifest.csv").write_text(text.replace("new", ""))
    assert [e.scanner for e in read_manifest(site, study_of())] == ["old", "", ""]


def test_a_segmentation_needs_a_mask_in_each_row(tmp_path: Path) -> None:
    site = site_of(tmp_path, "patient,image,mask\np1,a.png,b.png\np2,a.png,\n")
    with pytest.raises(DataError, match=r"the column mask is empty in row 3"):
        read_manifest(site, study_of("segmentation"))


@pytest.mark.parametrize(
    ("manifest", "fact"),
    [
        ("", "is empty"),
        ("patient,image,label\n", "no rows"),
        ("patient,image\np,a.png\n", "lacks the column label; it has: patient, image"),
        ("image,label\na.png,0\n", "lacks the column patient"),
        ("patient,image,label,label\np,a.png,0,0\n", "two columns label"),
        ("patient,image,label\n,a.png,0\n", "column patient is empty in row 2"),
        ("patient,image,label\np,,0\n", "column image is empty in row 2"),
        ("patient,image,label\np,a.png,\n", "column label is empty in row 2"),
        ("patient,image,label\np,a.png,2\n", "no class of the study in row 2"),
        ("patient,image,label\np,a.png,-1\n", "no class of the study in row 2"),
        ("patient,image,label\np,set.npy#x,0\n", "does not name an item in row 2"),
        ("patient,image,label\np,a.png,0,1\n", "more cells than columns in row 2"),
        ("patient,image,label,split\np,a.png,0,dev\n", "names no split in row 2"),
        ("patient,image,label,split\np,a.png,0,train\nq,a.png,0,\n", "is empty, but not .* row 3"),
    ],
)
def test_an_unusable_manifest_is_refused_with_the_fact(
    tmp_path: Path, manifest: str, fact: str
) -> None:
    with pytest.raises(DataError, match=fact):
        read_manifest(site_of(tmp_path, manifest), study_of())


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    site = site_of(tmp_path, "")
    site.manifest_path.unlink()
    with pytest.raises(DataError, match="there is no manifest"):
        read_manifest(site, study_of())


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    site = site_of(tmp_path, "")
    site.manifest_path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(site, study_of())


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = "p1,a.png,0,train\np2,a.png,0,train\np1,b.png,0,test\n"
    site = site_of(tmp_path, "patient,image,label,split\n" + rows)
    with pytest.raises(DataError, match="the patient is also in another split in row 4"):
        read_manifest(site, study_of())


def test_problems_are_summed_up_and_name_no_patient_and_no_file(tmp_path: Path) -> None:
    rows = "".join(f"SECRET{i},HIDDEN{i}.png,tumour\n" for i in range(20))
    site = site_of(tmp_path, "patient,image,label\n" + rows)
    with pytest.raises(DataError) as caught:
        read_manifest(site, study_of())
    message = str(caught.value)
    assert "no class of the study in rows 2, 3, 4, 5, 6 and 15 more" in message
    assert "column image names is missing in rows 2, 3, 4, 5, 6 and 15 more" in message
    assert not any(word in message for word in ("SECRET", "HIDDEN", "tumour"))


def test_a_format_that_no_reader_knows_is_refused_before_any_image_is_opened(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    site = site_of(tmp_path, "patient,image,label\np1,a.svg,healthy\n")
    with pytest.raises(DataError, match="column image names is of an unknown format in row 2"):
        read_manifest(site, study_of())


def test_missing_files_are_left_to_the_reading_where_they_may_be_skipped(tmp_path: Path) -> None:
    site = site_of(tmp_path, "patient,image,label\np,gone.png,0\n", "skip_unreadable = true")
    assert len(read_manifest(site, study_of())) == 1


def test_covariates_are_read_in_the_order_of_the_study(tmp_path: Path) -> None:
    text = "patient,image,label,sex,age\np1,a.png,0,male,61\np2,a.png,0,,?\n"
    covariates = [{"name": "age"}, {"name": "sex", "values": ["male", "female"]}]
    study = study_of(covariates=covariates, optional=["age", "sex"])
    examinations = read_manifest(site_of(tmp_path, text), study)
    assert [e.covariates for e in examinations] == [("61", "male"), ("?", "")]


def test_a_missing_value_is_refused_where_the_study_lets_nothing_be_missing(
    tmp_path: Path,
) -> None:
    text = "patient,image,label,sex,age\np1,a.png,0,male,61\np2,a.png,0,,?\np3,a.png,0,m,1\n"
    covariates = [{"name": "age"}, {"name": "sex", "values": ["male", "female"]}]
    with pytest.raises(DataError) as refusal:
        read_manifest(site_of(tmp_path, text), study_of(covariates=covariates))
    said = str(refusal.value)
    assert "the column age holds no value in row 3: fill it in, or let data.optional" in said
    assert "the column sex holds no value in row 3" in said
    assert "the column sex holds a word that the study does not list in row 4" in said


def test_a_site_may_lack_an_optional_column_wholly_and_it_is_said(tmp_path: Path) -> None:
    text = "patient,image,label\np1,a.png,0\n"
    study = study_of(covariates=[{"name": "age"}], optional=["age"])
    manifest = open_manifest(site_of(tmp_path, text), study)
    assert [e.covariates for e in manifest.examinations] == [("",)]
    assert manifest.notes[0].startswith("the manifest has no column age: it counts as missing")
    with pytest.raises(DataError, match="lacks the column age"):
        read_manifest(site_of(tmp_path, text), study_of(covariates=[{"name": "age"}]))


def test_a_row_may_lack_an_optional_channel_but_not_all_and_no_other(tmp_path: Path) -> None:
    text = "patient,image.t1,image.t2,label\np1,a.png,,0\np2,a.png,b.png,0\n"
    study = study_of(channels=["t1", "t2"], optional=["t2"])
    first, second = read_manifest(site_of(tmp_path, text), study)
    assert [image is None for image in first.images] == [False, True]
    assert len(second.locations) == 2
    with pytest.raises(DataError, match=r"the column image\.t2 is empty in row 2"):
        read_manifest(site_of(tmp_path, text), study_of(channels=["t1", "t2"], optional=["t1"]))
    empty = "patient,image.t1,image.t2,label\np1,,,0\n"
    both = study_of(channels=["t1", "t2"], optional=["t1", "t2"])
    with pytest.raises(DataError, match=r"image\.t1, image\.t2 are all empty in row 2"):
        read_manifest(site_of(tmp_path, empty), both)
    lacks = "patient,image.t1,label\np1,a.png,0\n"
    (only,) = read_manifest(site_of(tmp_path, lacks), study)
    assert only.images[1] is None
    with pytest.raises(DataError, match=r"lacks the column image\.t1, image\.t2"):
        read_manifest(site_of(tmp_path, "patient,label\np1,0\n"), both)


@pytest.mark.parametrize("cell", ["old", "inf", "1,5"])
def test_a_covariate_that_is_no_number_is_refused(tmp_path: Path, cell: str) -> None:
    text = f'patient,image,label,age\np1,a.png,0,"{cell}"\n'
    with pytest.raises(DataError, match="the column age is not a number in row 2"):
        read_manifest(site_of(tmp_path, text), study_of(covariates=[{"name": "age"}]))


def test_what_is_wrong_with_a_row_of_a_later_wave_is_not_an_earlier_study_s(tmp_path: Path) -> None:
    """A class that came later, a file that is not there yet: the earlier study is repeated."""
    rows = "p1,a.png,normal,1\np2,b.png,pneumonia,\np3,gone.png,covid,2\np4,c.png,normal,two\n"
    site = site_of(tmp_path, f"patient,image,label,wave\n{rows}")
    first, second = (with_changes(study_of(), {"continual.wave": wave}) for wave in (1, 2))
    with pytest.raises(DataError, match="the column wave names no wave of data in row 5") as said:
        read_manifest(site, first)
    assert "row 4" not in str(said.value)
    with pytest.raises(DataError, match=r"names no class of the study in row 4.*in row 5"):
        read_manifest(site, second)
    site = site_of(tmp_path, f"patient,image,label,wave\n{rows.replace('two', '2')}")
    assert [one.patient for one in read_manifest(site, first)] == ["p1", "p2"]
