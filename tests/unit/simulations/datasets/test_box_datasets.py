import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from numpy.testing import assert_allclose

from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.client.tasks.registry import TASKS as SITE_TASKS
from wardround.common.errors import InputError
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import LOSSES, NETWORKS, TASKS, TaskEntry
from wardround.simulations.datasets.catalogue import load_dataset
from wardround.simulations.sites.site_folders import write_sites
from wardround.simulations.sites.split import split_examinations

CELLS = ("RBC", "WBC", "Platelets")


class Boxes:
    """A task whose target is boxes; nothing else of it is looked at here."""

    labels = object()

    def cases_of_classes(self, targets, study):
        return (targets[..., :1] == torch.arange(study.class_count)).any(1).sum(0)


@pytest.fixture
def study_of(monkeypatch):
    entry = TaskEntry("boxes", "frame every", "focal", "map50", fewest_classes=1)
    monkeypatch.setitem(TASKS, "detection", entry)
    monkeypatch.setitem(SITE_TASKS, "detection", Boxes())
    row = replace(NETWORKS["small-cnn"], tasks=("classification", "detection"))
    monkeypatch.setitem(NETWORKS, "small-cnn", row)
    monkeypatch.setitem(LOSSES, "focal", (*LOSSES["focal"], "detection"))

    def study_of(classes=CELLS, **simulation):
        return parse_study(
            {
                "study": {"name": "boxes", "task": "detection"},
                "data": {"classes": list(classes), "size": [48, 64], "colour": True},
                "model": {"network": "small-cnn"},
                "training": {"loss": "focal"},
                "evaluation": {"metric": "map50"},
                "simulation": simulation,
            }
        )

    return study_of


def annotation(*boxes):
    things = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in boxes
    )
    size = "<size><width>64</width><height>48</height></size>"
    return f"<annotation>{size}{things}</annotation>"


def write_bccd(folder):
    """Write a data set laid out as BCCD is, of twelve pictures."""
    import PIL.Image

    root = folder / "bccd" / "BCCD"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    names = [f"BloodImage_{number:05}" for number in range(12)]
    for number, name in enumerate(names):
        PIL.Image.new("RGB", (64, 48), (200, 20 * number, 90)).save(root / f"JPEGImages/{name}.jpg")
        boxes = [("RBC", 4, 6, 20, 30), ("WBC", 30, 2, 50, 20)][: 1 + number % 2]
        boxes += [("RBC", 5, 5, 5, 5)] if number == 0 else []
        (root / f"Annotations/{name}.xml").write_text(annotation(*boxes))
    for part, some in (("train", names[:6]), ("val", names[6:9]), ("test", names[9:])):
        (root / f"ImageSets/Main/{part}.txt").write_text("\n".join(some))
    return root


def test_bccd_keeps_its_own_split_and_names_its_annotations(tmp_path, study_of):
    write_bccd(tmp_path)

    found = load_dataset("bccd", {}, tmp_path, study_of())

    assert Counter(row.split for row in found.rows) == {"train": 6, "validation": 3, "test": 3}
    assert found.rows[0].boxes.endswith("Annotations/BloodImage_00000.xml")
    assert "name no patient" in found.notes[0]


def test_some_kinds_of_cells_alone_are_written_out(tmp_path, study_of):
    write_bccd(tmp_path)

    found = load_dataset("bccd", {}, tmp_path, study_of(["WBC"]))

    assert [row.boxes for row in found.rows[:2]] == ["none", "WBC 30 2 50 20"]
    with pytest.raises(InputError, match="BCCD has RBC, WBC, Platelets"):
        load_dataset("bccd", {}, tmp_path, study_of(["WBC", "plasma"]))


def test_a_site_of_bccd_has_its_boxes_in_its_batches(tmp_path, study_of):
    write_bccd(tmp_path)
    study = study_of(sites=1, split="iid")
    found = load_dataset("bccd", {}, tmp_path, study)
    sites = write_sites(found, split_examinations(found, study), study, tmp_path / "run")

    cohorts = open_cohorts(open_site(sites[0]), study)

    assert [len(part) for part in (cohorts.train, cohorts.validation, cohorts.test)] == [6, 3, 3]
    assert_allclose(cohorts.train.targets[0], [[0, 6, 4, 30, 20], [-1, 0, 0, 0, 0]])
    assert_allclose(cohorts.train.targets[1], [[0, 6, 4, 30, 20], [1, 2, 30, 20, 50]])


def test_a_folder_that_is_not_whole_is_refused(tmp_path, study_of):
    root = write_bccd(tmp_path)
    (root / "JPEGImages/BloodImage_00003.jpg").unlink()
    with pytest.raises(InputError, match="lacks 1 files"):
        load_dataset("bccd", {}, tmp_path, study_of())

    shutil.rmtree(root / "ImageSets")
    with pytest.raises(InputError, match="no list of images"):
        load_dataset("bccd", {}, tmp_path, study_of())
    with pytest.raises(InputError, match="BCCD was not found"):
        load_dataset("bccd", {}, tmp_path / "bccd" / "BCCD" / "JPEGImages", study_of())


def test_real_bccd_has_its_cells(shared_data: Path, study_of) -> None:
    from wardround.client.data.reading.boxes.voc import read_voc

    found = load_dataset("bccd", {}, shared_data, study_of())
    assert Counter(row.split for row in found.rows) == {"train": 205, "validation": 87, "test": 72}
    boxes = [read_voc(Path(row.boxes), 2) for row in found.rows]
    assert Counter(n for b in boxes for n in b.names) == {
        "RBC": 4155,
        "WBC": 372,
        "Platelets": 361,
    }
    assert all(one.size == (480, 640) for one in boxes)
    sizeless = sum(int((b.corners[:, 2:] <= b.corners[:, :2]).any(axis=1).sum()) for b in boxes)
    assert sizeless == 2


def test_real_ham10000_has_a_box_about_every_lesion_at_four_sites(
    shared_data: Path, study_of
) -> None:
    found = load_dataset("ham10000", {}, shared_data, study_of(["lesion"]))
    assert len({row.natural_site for row in found.rows}) == 4
    assert found.rows[0].boxes == "lesion 59 2 170 140"  # line 2 of the table: left 59, top 2

    with pytest.raises(InputError, match=r"data\.classes lacks"):
        load_dataset("ham10000", {}, shared_data, study_of(["nv", "mel"]))
