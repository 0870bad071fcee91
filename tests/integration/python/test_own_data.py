"""Own arrays and tables: what is taken, what is refused in words, and a model asked about them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import wardround as wr

N = 48
DRAW = np.random.default_rng(0)
LABELS = np.arange(N) % 2
IMAGES = DRAW.normal(0.4, 0.1, (N, 16, 16))
IMAGES[LABELS == 1, 4:12, 4:12] += 0.3
SITES = np.array(["north", "south"])[np.arange(N) // 2 % 2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> wr.SimulationResult:
    folder = tmp_path_factory.mktemp("own")
    data = wr.data.from_arrays(folder / "d", IMAGES, LABELS, sites=SITES, patients=range(N))
    study = data.study("own", rounds=1, features=[4], test_fraction=0.3)
    return wr.simulate(study, folder / "run", compare=False, threads=1)


def test_float_images_of_named_hospitals_are_trained_on(run: wr.SimulationResult) -> None:
    assert run.status == "finished"
    assert run.study.simulation.split == "natural"
    assert run.study.data.classes == ("0", "1")
    assert {*run.split.site} == {"north", "south"}


def test_arrays_tensors_and_lists_are_predicted_alike(run: wr.SimulationResult) -> None:
    some = IMAGES[:3]
    expected = wr.predict(run, some).probabilities
    assert expected.shape == (3, 2)
    for given in (torch.tensor(some)[:, None], list(some), torch.tensor(some), some[..., None]):
        assert wr.predict(run.model(), given).probabilities == pytest.approx(expected, abs=1e-6)
    assert wr.predict(run.folder, some[0]).probabilities == pytest.approx(expected[:1], abs=1e-6)
    found = wr.predict(run.folder / "models" / "federated", run.folder.parent / "d" / "images.npy")
    assert found[:3].probabilities == pytest.approx(expected, abs=1e-6)
    assert list(found.table.columns) == ["examination", "found", "0", "1"]
    with pytest.raises(wr.ModelError, match="see probabilities"):
        _ = found.labels


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (IMAGES[0] * 255, "image 0: the model was not made for this image"),
        (IMAGES[0, 0], "the images have the shape 16: give"),
        (np.zeros((2, 3, 4, 5, 6)), "the images have the shape 2x3x4x5x6"),
        (np.where(IMAGES[0] > 0.5, np.nan, IMAGES[0]), "not finite"),
        (None, "predicts from images"),
        ("nothing.png", "there is no file or folder"),
        ({"a": IMAGES[0]}, "given by name"),
        ([], "no image to predict"),
        (["a", object()], "no file or folder"),
    ],
)
def test_what_a_model_was_not_made_for_is_refused(
    given: Any, words: str, run: wr.SimulationResult
) -> None:
    with pytest.raises(wr.InputError, match=words):
        wr.predict(run, given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": LABELS[:5]}, "48 images and 5 labels"),
        ({"labels": np.eye(2)[LABELS]}, r"shape 48x2.*argmax"),
        ({"labels": LABELS * 0.5}, "labels holds 0.5"),
        ({"labels": LABELS * 0}, "one class only"),
        ({"labels": np.where(np.arange(N) == 7, np.nan, LABELS)}, "nothing in row 7"),
        ({"labels": None}, "give labels= for a classification or masks="),
        ({"classes": ["no"]}, "none of the classes in row 1"),
        ({"images": np.where(IMAGES > 0.9, np.nan, IMAGES)}, "not finite in row"),
        ({"images": [np.zeros((4, 4)), np.zeros((4, 5))]}, "different shapes"),
        ({"images": "folder"}, "images is str"),
        ({"images": IMAGES[:, 0, 0]}, "the shape 48: give"),
        ({"images": []}, "images holds nothing"),
        ({"patients": [None, *range(N - 1)]}, "patients holds nothing in row 0"),
        ({"patients": ["SECRET"] * N}, "at more than one hospital"),
        ({"sites": ["north"]}, "48 images and 1 sites"),
        ({"labels": None, "masks": IMAGES}, "masks holds float64"),
        ({"labels": None, "masks": LABELS[:, None, None] + IMAGES[:, :3] * 0}, "on the images"),
        ({"labels": None, "masks": np.zeros(IMAGES.shape, int)}, "nothing but background"),
    ],
)
def test_what_does_not_fit_is_refused_in_words_and_names_no_patient(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    given = {"images": IMAGES, "labels": LABELS, "patients": range(N), "sites": SITES, **change}
    with pytest.raises(wr.DataError, match=words) as error:
        wr.data.from_arrays(tmp_path / "d", **given)
    assert "SECRET" not in str(error.value)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("images", "keys"),
    [
        ((IMAGES * 255).astype("uint8"), {"size": (16, 16), "intensity": "none"}),
        (IMAGES * 1000, {"intensity": "mr"}),
        (np.zeros((N, 8, 9, 10)), {"dimensions": 3, "size": (8, 9, 10)}),
        (np.zeros((N, 16, 16, 3), "uint8"), {"dimensions": 2, "colour": True}),
        (torch.zeros(N, 3, 16, 16), {"dimensions": 2, "colour": True}),
        (torch.zeros(N, 1, 16, 16), {"dimensions": 2, "colour": False}),
        (np.zeros((N, 1, 8, 9, 10)), {"dimensions": 3, "size": (8, 9, 10)}),
    ],
)
def test_the_study_knows_what_the_images_are(
    images: Any, keys: dict[str, Any], tmp_path: Path
) -> None:
    names = np.where(LABELS == 1, "tumour", "healthy")
    data = wr.data.from_arrays(tmp_path / "d", images, names, patients=range(N)).study().data
    assert data.classes == ("healthy", "tumour")
    assert {key: getattr(data, key) for key in keys} == keys


def test_patients_that_are_not_named_are_assumed_and_said(tmp_path: Path) -> None:
    with pytest.warns(wr.data.AssumptionWarning, match="a patient of its own"):
        data = wr.data.from_arrays(tmp_path / "d", IMAGES, LABELS > 0)
    assert data.classes == ("no", "yes")
    assert "patient of its own" in data.study().study.description
    assert "patient of its own" in data._repr_html_()
    assert data.study().simulation.split == "iid"


def test_a_folder_keeps_what_it_holds_unless_told_otherwise(tmp_path: Path) -> None:
    def make(images: Any, **options: Any) -> wr.data.OwnData:
        folder = tmp_path / "d"
        return wr.data.from_arrays(folder, images, LABELS, patients=range(N), **options)

    make(IMAGES)
    before = (tmp_path / "d" / "images.npy").stat().st_mtime_ns
    make(IMAGES)
    assert (tmp_path / "d" / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(wr.InputError, match="holds other data"):
        make(IMAGES + 1)
    make(IMAGES + 1, replace=True)
    (tmp_path / "d" / "wardround-data.json").unlink()
    with pytest.raises(wr.InputError, match="holds other things"):
        make(IMAGES, replace=True)


def test_a_hospital_of_one_patient_is_refused_by_name(tmp_path: Path) -> None:
    patients, sites = ["a"] * 24 + ["b"] * 24, ["n"] * 24 + ["s"] * 24
    data = wr.data.from_arrays(tmp_path / "d", IMAGES, LABELS, patients=patients, sites=sites)
    with pytest.raises(wr.InputError, match="natural site n has 1 patient"):
        wr.simulate(data.study(rounds=1), tmp_path / "run", compare=False)


def test_a_data_frame_is_learnt_from_and_predicted(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": range(N),
            "hospital": SITES,
            "age": DRAW.normal(60, 10, N),
            "sex": np.where(np.arange(N) % 3, "f", "m"),
            "smoker": np.arange(N) % 5 == 0,
            "outcome": np.where(LABELS == 1, "ill", "well"),
        }
    )
    frame.loc[3, "age"] = np.nan
    data = wr.data.from_table(tmp_path / "d", frame, "outcome", patient="id", site="hospital")
    assert any("1 values are missing, of age" in one for one in data.assumptions)
    assert data.study().data.optional == ("age",)
    study = data.study(rounds=1, features=[])
    assert [one.name for one in study.data.covariates] == ["age", "sex", "smoker"]
    run = wr.simulate(study, tmp_path / "run", compare=False, threads=1)
    assert wr.predict(run, frame.head(3)).probabilities.shape == (3, 2)
    with pytest.raises(wr.DataError, match="lacks the column sex, smoker"):
        wr.predict(run, frame[["age"]])
    with pytest.raises(wr.DataError, match=r"row 0 .*age is no number"):
        wr.predict(run, frame.assign(age="old"))


@pytest.mark.parametrize(
    ("table", "label", "words"),
    [
        ({"a": [1, 2], "y": [0, 1]}, "z", "unknown column 'z'"),
        ({"a": [1], "y": [0, 1]}, "y", "different lengths"),
        ({"y": [0, 1]}, "y", "no column is left"),
        ({"a": [None, None], "y": [0, 1]}, "y", "holds no value"),
        ({"a": [f"t{k}" for k in range(60)], "y": [0, 1] * 30}, "y", "60 different texts"),
        ({"a": [1, "x"], "y": [0, 1]}, "y", "holds int and str"),
        ({"patient": [1, 2], "y": [0, 1]}, "y", "as one of ours"),
        (3, "y", "the table is int"),
        ({}, "y", "no rows"),
    ],
)
@pytest.mark.filterwarnings("ignore::wardround.data.AssumptionWarning")
def test_a_table_that_cannot_be_used_is_refused_in_words(
    table: Any, label: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(wr.DataError, match=words):
        wr.data.from_table(tmp_path / "d", table, label)
