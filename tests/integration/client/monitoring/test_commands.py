"""``wardround site monitor`` from its first command to its page, with a network that was drawn."""

import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tests.support.clinic.model_folders import CLASSIFIES, SEGMENTS, untrained_model
from tests.support.studies.tiny_study import Said

Wardround = Callable[..., Said]
TABLE = {
    "study": {"name": "ages", "task": "classification"},
    "data": {
        "kind": "table",
        "classes": ["no", "yes"],
        "covariates": [
            {"name": "age", "mean": 55.0, "scale": 15.0},
            {"name": "sex", "values": ["f", "m"]},
        ],
    },
    "model": {"network": "mlp"},
    "federation": {"rounds": 2},
}


def pictures(folder: Path, count: int, seed: int, *, factor: float = 1.0) -> Path:
    """Write pictures of two scanners, which a manifest names."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = ["patient,image,label,scanner,split"]
    for place in range(count):
        name = f"CANARY{seed}{place:03d}.png"
        values = (draw.random((16, 16)) * draw.uniform(150, 200) + 20) * factor
        PIL.Image.fromarray(values.astype(np.uint8)).save(folder / name)
        split = ("train", "validation", "test")[place % 3]
        label, scanner = ("normal", "abnormal")[place % 2], ("A", "B")[place // 2 % 2]
        rows.append(f"p{seed}-{place},{name},{label},{scanner},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def north(tmp_path: Path) -> Path:
    pictures(tmp_path / "north", 120, 1)
    (tmp_path / "north" / "site.toml").write_text('name = "north"\n')
    untrained_model(tmp_path / "model", CLASSIFIES)
    return tmp_path / "north"


@pytest.fixture
def begun(north: Path, wardround: Wardround) -> Path:
    model = north.parent / "model"
    said = wardround("site", "monitor", "reference", north, "--model", model)
    assert said.code == 0, said.err
    assert "80 images, 80 with a label; looked at every week." in said.out
    return north


def test_a_hospital_is_told_of_a_darker_scanner_and_closes_the_alarm(
    begun: Path, wardround: Wardround
) -> None:
    folder = begun.parent
    for week, factor in ((40, 1.0), (41, 0.7)):
        images = pictures(folder / f"w{week}", 40, week, factor=factor) / "manifest.csv"
        said = wardround("site", "monitor", "add", begun, images, "--period", f"2026-W{week}")
        assert f"Added 40 images to 2026-W{week}." in said.out
    assert said.code == 1
    assert "ALARM 2026-W41: The images of scanner" in said.out
    again = wardround("site", "monitor", "status", begun)
    assert again.code == 1
    assert re.search(r"since 2026-W41.* is \d+ \(reference \d+, −\d", again.out)
    printed = wardround("site", "monitor", "status", begun, "--json")
    assert [one["period"] for one in json.loads(printed.out)["alarms"]] == ["2026-W41"]
    page = folder / "page.html"
    assert wardround("site", "monitor", "page", begun, "--out", page).code == 0
    assert "1 alarm is open, since 2026-W41" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    closed = wardround("site", "monitor", "acknowledge", begun, "--reason", "tube")
    assert closed.out == "Closed 1 alarm.\n"
    assert wardround("site", "monitor", "status", begun).code == 0
    kept = b"".join(p.read_bytes() for p in (begun / "state").rglob("*") if p.is_file())
    assert b"CANARY" not in kept
    assert b"p41" not in kept


def test_labels_that_come_later_are_held_against_the_reference_s(
    begun: Path, wardround: Wardround
) -> None:
    images = pictures(begun.parent / "w40", 24, 40) / "manifest.csv"
    wardround("site", "monitor", "add", begun, images, "--period", "2026-W40")
    said = wardround("site", "monitor", "labels", begun, images)
    assert said.code == 0, said.err
    assert "24 labels; 0 rows are of images that were not added." in said.out
    assert re.search(r"Reference, 80 labelled: accuracy 0\.\d+, AUROC 0\.\d+", said.out)
    assert "New images, 24 labelled" in said.out
    wrong = images.with_name("wrong.csv")
    wrong.write_text("image,label\nCANARY40000.png,broken\n")
    refused = wardround("site", "monitor", "labels", begun, wrong)
    assert "row 2: the label is none of the model's classes: normal, abnormal." in refused.err
    wrong.write_text("image\nCANARY40000.png\n")
    assert "lacks the column label" in wardround("site", "monitor", "labels", begun, wrong).err
    images.with_name("other.png").write_bytes((begun / "CANARY1000.png").read_bytes())
    wrong.write_text("image,label\nother.png,normal\n")
    refused = wardround("site", "monitor", "labels", begun, wrong)
    assert "none of the 1 labelled rows" in refused.err


def test_what_is_predicted_anyway_is_counted(begun: Path, wardround: Wardround) -> None:
    folder = begun.parent
    images = pictures(folder / "new", 12, 5) / "manifest.csv"
    options = ("--out", folder / "out", "--monitor", begun)
    assert wardround("predict", folder / "model", images, *options).code == 0
    printed = json.loads(wardround("site", "monitor", "status", begun, "--json").out)
    assert [*printed["waiting"].values()] == [12]
    other = untrained_model(folder / "other", CLASSIFIES, seed=4)
    refused = wardround("predict", other, images, "--out", folder / "o2", "--monitor", begun)
    assert refused.code == 2
    assert "numbers of two models cannot be compared" in refused.err


def test_what_cannot_be_used_is_told_and_stops_no_other(begun: Path, wardround: Wardround) -> None:
    folder = pictures(begun.parent / "w40", 10, 40)
    np.save(folder / "nan.npy", np.full((16, 16), np.nan, np.float32))
    np.save(folder / "deep.npy", np.zeros((1, 16, 16, 16, 4), np.float32))
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[..., 0] = 250
    PIL.Image.fromarray(rgb).save(folder / "red.png")
    PIL.Image.fromarray(np.arange(4000, dtype=np.uint8).reshape(50, 80)).save(folder / "wide.png")
    said = wardround("site", "monitor", "add", begun, folder, "--period", "2026-W40")
    assert said.code == 1
    assert "values that are not finite" in said.out
    assert "its shape is 16x16x16x4 for a 2D study" in said.out
    assert "it is a coloured picture, and the model was trained on grey ones" in said.out
    assert "Added 11 images" in said.out, said.out  # the wide one is brought to the model's size


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("add", "{north}", "{empty}"), "holds no image: name files, folders of images"),
        (("add", "{north}", "{gone}"), "there is no file or folder"),
        (("add", "{north}", "{north}", "--period", "2026-54"), "is no week: write it as 2026-W48"),
        (("add", "{north}", "{north}", "--model", "{gone}"), "model folder"),
        (("close", "{north}", "--period", "2026-W40"), "there are no images of 2026-W40"),
        (("acknowledge", "{north}", "--reason", " "), "say what was found out"),
        (("reference", "{north}", "{one}", "--model", "{model}"), "1 images can be used of 1"),
        (
            ("reference", "{north}", "--model", "{model}", "--split", "testing"),
            "unknown split 'testing'",
        ),
        (
            ("reference", "{north}", "--model", "{model}", "--false-alarms", "0"),
            "0 false alarms a year cannot be rationed",
        ),
        (("reference", "{north}", "--model", "{model}", "--every", "year"), "Known: day"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(
    begun: Path, wardround: Wardround, words: tuple[str, ...], sentence: str
) -> None:
    folder = begun.parent
    (folder / "empty").mkdir()
    places = {
        **{"north": begun, "empty": folder / "empty", "gone": folder / "gone"},
        **{"one": begun / "CANARY1000.png", "model": folder / "model"},
    }
    said = wardround("site", "monitor", *(word.format(**places) for word in words))
    assert said.code == 2, said.err
    assert sentence in said.err
    assert "Traceback" not in said.err


def test_a_model_that_has_moved_is_asked_for(begun: Path, wardround: Wardround) -> None:
    moved = begun.parent / "elsewhere"
    (begun.parent / "model").rename(moved)
    images = pictures(begun.parent / "new", 9, 5)
    said = wardround("site", "monitor", "add", begun, images)
    assert "model is no longer at" in said.err
    assert wardround("site", "monitor", "add", begun, images, "--model", moved).code == 0


def test_volumes_are_held_against_volumes(tmp_path: Path, wardround: Wardround) -> None:
    import nibabel

    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "site.toml").write_text('name = "north"\n')
    model = untrained_model(tmp_path / "model", SEGMENTS)
    draw = np.random.default_rng(0)
    for folder, count, factor in (("before", 24, 1.0), ("after", 10, 3.0)):
        (tmp_path / folder).mkdir()
        for place in range(count):
            values = (draw.normal(100, 20, (12, 12, 8)) * factor).astype(np.float32)
            image = nibabel.Nifti1Image(values, np.eye(4))
            nibabel.save(image, tmp_path / folder / f"{place}.nii.gz")
    site = tmp_path / "north"
    set_ = wardround("site", "monitor", "reference", site, tmp_path / "before", "--model", model)
    assert set_.code == 0, set_.err
    wardround("site", "monitor", "add", site, tmp_path / "after", "--period", "2026-W40")
    printed = json.loads(wardround("site", "monitor", "status", site, "--json").out)
    (alarm,) = printed["alarms"]
    assert alarm["words"][0].startswith("The images look different, since 2026-W40")
    names = {one["name"] for one in printed["entries"][0]["findings"]}
    assert {"hippocampus (ml)", "noise"} <= names
    assert wardround("site", "monitor", "page", site).code == 0
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\nafter/0.nii.gz,hippocampus\n")
    refused = wardround("site", "monitor", "labels", site, labels)
    assert "masks and boxes are not kept here" in refused.err


def test_a_table_is_watched_by_its_values(tmp_path: Path, wardround: Wardround) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "site.toml").write_text('name = "north"\n')
    model = untrained_model(tmp_path / "model", TABLE)
    draw = np.random.default_rng(0)
    for name, count, age in (("before", 60, 50), ("after", 30, 75)):
        rows = [f"{draw.normal(age, 8):.1f},{'fm'[place % 2]}" for place in range(count)]
        (tmp_path / f"{name}.csv").write_text("age,sex\n" + "\n".join(rows) + "\n")
    site, before = tmp_path / "north", tmp_path / "before.csv"
    assert wardround("site", "monitor", "reference", site, before, "--model", model).code == 0
    said = wardround(
        *("site", "monitor", "add", site, tmp_path / "after.csv", "--period", "2026-W40")
    )
    assert said.code == 1
    assert "Age is 7" in said.out


def test_an_image_that_lies_or_is_named_twice_is_counted_once(
    begun: Path, wardround: Wardround, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun.parent
    week = pictures(folder / "week", 3, 5)
    first = wardround("site", "monitor", "add", begun, week, "--json")
    assert json.loads(first.out)["added"] == 3
    monkeypatch.chdir(folder)
    named = [week / "CANARY5000.png", "week/CANARY5000.png", "./week", week / "manifest.csv"]
    shutil.copytree(week, folder / "exported again", copy_function=shutil.copyfile)
    for images in (*named, "exported again"):
        again = wardround("site", "monitor", "add", begun, images, "--json")
        assert again.code == 0, again.err
        assert json.loads(again.out)["added"] == 0
