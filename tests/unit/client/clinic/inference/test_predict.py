"""wardround predict: each input is predicted once, refused in words, or said to have failed."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
from tests.unit.client.clinic.inference.conftest import MakeModel, study_of

from wardround.client.clinic.inference.inputs import find_inputs, names_of
from wardround.client.clinic.inference.prediction import Classified, Segmented
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.inference.work import Outcome, model_folders, predict_all
from wardround.client.data.batch import Batch
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import Image
from wardround.client.data.reading.readers import read_image
from wardround.client.tasks.segmentation import most_likely_classes
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.errors import DataError, InputError, ModelError
from wardround.common.study.study import Study

_MIRRORS = {"tta": "mirror"}
OPTIONS = {"tta": False, "uncertainty": False, "outside": "refuse"}


def run(model: Path | list[Path], inputs: list[str], out: Path, **changes: object) -> Outcome:
    predictor = load_predictor(model, "cpu")
    return predict_all(predictor, inputs, out, {**OPTIONS, **changes}, lambda done, total: None)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def volumes(**data: object) -> Study:
    keys = {"dimensions": 3, "orientation": "RAS", "spacing": [1.0, 1.0, 1.0], "intensity": "mr"}
    return study_of("segmentation", data={**keys, **data})


def write_volume(path: Path, shape: tuple[int, ...] = (12, 10, 9)) -> Path:
    affine = np.array([[0, -2.0, 0, 9], [-1.0, 0, 0, 7], [0, 0, 1.5, -3], [0, 0, 0, 1]])
    values = np.random.default_rng(1).random(shape).astype(np.float32) * 100
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def test_a_bad_picture_stops_no_other_and_names_follow_files_without_collisions(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a" / "bad.png").write_text("no picture")
    outcome = run(make_model(study_of(), looked_at=None), [str(pictures)], tmp_path / "out")
    assert (len(outcome.predicted), len(outcome.failed)) == (8, 1)
    assert "damaged" in outcome.failed[0].failure
    found = rows(tmp_path / "out")
    assert {row["name"] for row in found} == {f"{x}_{n}" for x in "ab" for n in range(4)}
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert said["is_calibrated"] is False
    assert "not for diagnosis" in said["note"].lower()
    assert "bad.png" in (tmp_path / "out" / "failed.csv").read_text()


def test_batches_say_what_single_images_say(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    model = make_model(study_of())
    run(model, [str(pictures)], tmp_path / "out")
    predictor = load_predictor(model, "cpu")
    for row in rows(tmp_path / "out"):
        alone = predictor.predict(read_image(Location(Path(row["input"])), 2))
        assert isinstance(alone, Classified)
        assert float(row["probability of abnormal"]) == pytest.approx(alone.probabilities[1], 1e-6)
        assert alone.found == (row["found"],)


def test_a_second_try_does_what_is_left_and_a_torn_line_is_done_again(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    model, out = make_model(study_of()), tmp_path / "out"
    run(model, [str(pictures / "a")], out)
    journal = out / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])  # killed while it wrote
    outcome = run(model, [str(pictures)], out)
    assert (len(outcome.predicted), outcome.skipped) == (8, 3)
    assert len({row["name"] for row in rows(out)}) == 8
    assert run(model, [str(pictures)], out).skipped == 8
    other = make_model(study_of(), "other", seed=1)
    with pytest.raises(InputError, match="another model"):
        run(other, [str(pictures)], out)
    with pytest.raises(InputError, match="holds no predictions"):
        run(model, [str(pictures)], pictures)


def test_an_image_the_model_was_not_made_for_is_refused_with_the_reason_or_marked(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    model = make_model(study_of(), looked_at=pictures)
    colours = np.zeros((24, 20, 3), np.uint8)
    colours[..., 0] = 200
    PIL.Image.fromarray(colours).save(pictures / "red.png")
    PIL.Image.fromarray(np.full((24, 20), 9, np.uint8)).save(pictures / "empty.png")
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 20), np.uint8)).save(
        pictures / "large.png"
    )
    np.save(pictures / "deep.npy", np.random.default_rng(0).random((24, 20)) * 4000)
    outcome = run(model, [str(pictures)], tmp_path / "out")
    reasons = {Path(one.input).stem: one.failure for one in outcome.failed}
    assert reasons.keys() == {"red", "empty", "large", "deep"}
    assert "coloured picture" in reasons["red"]
    assert "one value only" in reasons["empty"]
    assert "240 voxels along axis 1, the training images 24 to 24" in reasons["large"]
    assert "out of distribution: the brightest 1 %" in reasons["deep"]
    marked = run(model, [str(pictures)], tmp_path / "marked", outside="mark")
    assert {Path(one.input).stem for one in marked.failed} == {"red"}
    assert sum("outside" in one.content for one in marked.predicted) == 3


def test_hounsfield_units_are_not_bytes_and_mr_is_not_ct(make_model: MakeModel) -> None:
    ct = load_predictor(make_model(study_of(data={"intensity": "ct"}), "ct"), "cpu")
    grey = Image(np.arange(400, dtype=np.float32).reshape(1, 20, 20) % 256, eight_bit=True)
    with pytest.raises(DataError, match="takes Hounsfield units"):
        ct.predict(grey)
    assert ct.outside(Image(grey.array), "MR") == (
        "its modality is MR, and the model was trained on ct images (CT)",
    )


def test_a_mask_lies_on_the_voxels_of_its_own_image(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_volume(tmp_path / "scan.nii.gz")
    model, out = make_model(volumes()), tmp_path / "out"
    run(model, [str(source)], out, uncertainty=True)
    mask, image = nibabel.load(out / "masks" / "scan.nii.gz"), nibabel.load(source)
    assert mask.shape == image.shape
    assert np.allclose(mask.affine, image.affine)
    (row,) = rows(out)
    voxels = [int(row[f"voxels of {name}"]) for name in ("normal", "abnormal")]
    assert voxels == np.bincount(np.asarray(mask.dataobj).ravel(), minlength=2).tolist()
    assert float(row["ml of abnormal"]) == pytest.approx(voxels[1] * 3 / 1000)


def test_windows_that_slide_give_the_classes_of_an_evaluation(
    make_model: MakeModel, tmp_path: Path
) -> None:
    study = volumes(orientation="stored", spacing=None)
    whole = study.model_copy(
        update={"training": study.training.model_copy(update={"patch_size": (8, 8, 8)})}
    )
    predictor = load_predictor(make_model(whole), "cpu")
    image = read_image(Location(write_volume(tmp_path / "scan.nii")), 3)
    found = predictor.predict(image)
    assert isinstance(found, Segmented)
    prepared = predictor.prepare(image)
    assert prepared.image is not None
    network = predictor.models[0].network()
    batch = Batch(prepared.image[None], None, torch.zeros(1, dtype=torch.int64))
    with evaluating(network):
        expected = most_likely_classes(predict(network, batch, predictor.study))[0].numpy()
    assert prepared.grid is not None
    assert prepared.grid.turn is None
    assert (found.labels == expected).mean() > 0.999


def test_several_models_and_views_vote(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    study = study_of(data={"augmentation": "dermoscopy"})
    models = [make_model(study, f"m{seed}", seed) for seed in (0, 1)]
    image = read_image(Location(pictures / "a" / "0.png"), 2)
    alone = [load_predictor(model, "cpu").predict(image) for model in models]
    both = load_predictor(models, "cpu").predict(image)
    assert isinstance(both, Classified)
    assert both.spread is not None
    mean = np.mean([one.probabilities for one in alone], axis=0)
    assert both.probabilities == pytest.approx(mean)
    views = load_predictor(models[0], "cpu", views=True).predict(image)
    assert isinstance(views, Classified)
    assert max(views.spread or ()) > 0
    again = load_predictor(models[0], "cpu", views=True).predict(image)
    assert views == again
    dense = study_of("segmentation", data={"augmentation": "histology"})
    plain = load_predictor(make_model(dense, "dense"), "cpu")
    flipped = load_predictor(tmp_path / "dense", "cpu", views=True)
    one, other = plain.predict(image), flipped.predict(image)
    assert isinstance(one, Segmented)
    assert isinstance(other, Segmented)
    mirrored = Image(image.array[:, ::-1, ::-1].copy(), eight_bit=True)
    turned = flipped.predict(mirrored)
    assert isinstance(turned, Segmented)
    assert (turned.labels[::-1, ::-1] == other.labels).mean() > 0.999
    with pytest.raises(InputError, match="leave --tta out"):
        load_predictor(make_model(study_of(), "none"), "cpu", views=True)
    with pytest.raises(ModelError, match="an ensemble needs one"):
        load_predictor([models[0], tmp_path / "dense"], "cpu")


def test_a_model_whose_study_mirrors_is_not_mirrored_again(
    make_model: MakeModel, pictures: Path
) -> None:
    study = study_of("segmentation", data={"augmentation": "histology"}, evaluation=_MIRRORS)
    model, image = make_model(study), read_image(Location(pictures / "a" / "0.png"), 2)
    seen: list[int] = []
    for views in (False, True):
        predictor = load_predictor(model, "cpu", views=views)
        counted = predictor.networks[0].register_forward_hook(lambda *_: seen.append(1))
        predictor.predict(image)
        counted.remove()
        seen.append(0)
    assert seen == [1, 1, 1, 1, 0] * 2


def test_arrays_and_manifests_are_inputs_and_masks_of_arrays_are_arrays(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    items = np.random.default_rng(0).integers(0, 255, (3, 24, 20), np.uint8)
    np.savez(tmp_path / "set.npz", test=items, other=items)
    study, out = study_of("segmentation"), tmp_path / "out"
    run(make_model(study), [f"{tmp_path / 'set.npz'}#test", str(pictures / "a" / "1.png")], out)
    names = sorted(path.name for path in (out / "masks").iterdir())
    assert names == ["1.png", "set-test-0.npy", "set-test-1.npy", "set-test-2.npy"]
    assert np.asarray(PIL.Image.open(out / "masks" / "1.png")).shape == (24, 20)
    manifest = pictures / "manifest.csv"
    manifest.write_text("patient,image,age\np,a/1.png,40\nq,b/2.png,50\n")
    covariates = [{"name": "age", "mean": 50.0, "scale": 10.0}]
    clinical = make_model(study_of(data={"covariates": covariates}), "clinical")
    outcome = run(clinical, [str(manifest)], tmp_path / "clinical-out")
    assert [one.name for one in outcome.predicted] == ["1", "2"]
    with pytest.raises(InputError, match="needs a manifest"):
        find_inputs([str(pictures)], load_predictor(clinical, "cpu").study)


def test_rows_of_a_table_and_images_of_several_channels_come_from_a_manifest(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    covariates = [{"name": "age", "mean": 50.0, "scale": 10.0}, {"name": "sex", "values": ["f"]}]
    table = study_of(
        data={"kind": "table", "size": None, "covariates": covariates, "optional": ["age"]},
        model={"network": "mlp"},
    )
    manifest = tmp_path / "table.csv"
    manifest.write_text("age,sex\n40,f\n,F\nold,f\n50,m\n50,\n")
    outcome = run(make_model(table, "table"), [str(manifest)], tmp_path / "table-out")
    assert [one.name for one in outcome.predicted] == ["row-2", "row-3"]
    assert "value of age is not a number" in outcome.failed[0].failure
    assert all("no value of sex that the model knows" in one.failure for one in outcome.failed[1:])
    assert len(outcome.failed) == 3
    two = study_of(data={"channels": ["first", "second"]})
    pairs = pictures / "pairs.csv"
    pairs.write_text("image.first,image.second\na/0.png,b/0.png\na/1.png,absent.png\n")
    outcome = run(make_model(two, "two"), [str(pairs)], tmp_path / "two-out")
    assert (len(outcome.predicted), len(outcome.failed)) == (1, 1)
    assert "missing" in outcome.failed[0].failure
    with pytest.raises(InputError, match=r"the columns image\.first, image\.second"):
        find_inputs([str(pictures)], two)


def test_each_row_says_what_was_missing_and_what_may_not_be_is_refused_by_name(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    study = study_of(
        data={
            "channels": ["first", "second", "third"],
            "covariates": [{"name": "age", "mean": 50.0, "scale": 10.0}, {"name": "weight"}],
            "optional": ["age", "second", "third"],
        },
        model={"fusion": "late"},
    )
    table = pictures / "some.csv"
    rows = [
        "image.first,image.second,image.third,age,weight",
        "a/0.png,b/0.png,a/1.png,50,80",
        "a/1.png,,b/1.png,?,80",
        "a/2.png,,,51,80",
        ",b/3.png,a/3.png,50,80",
        "a/3.png,b/3.png,a/3.png,50,",
    ]
    table.write_text("\n".join(rows) + "\n")
    outcome = run(make_model(study, "three"), [str(table)], tmp_path / "out")

    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        said = [row["missing"] for row in csv.DictReader(stream)]
    assert said == ["", "age; second", "second; third"]
    details = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert details["predictions"][1]["missing"] == ["age", "second"]
    assert "lacks the channel first" in outcome.failed[0].failure
    assert "no value of weight" in outcome.failed[1].failure
    # Columns may be missing altogether; a model that lacks nothing has no such column.
    table.write_text("image.first,weight\na/0.png,80\n")
    run(make_model(study, "again"), [str(table)], tmp_path / "fewer")
    assert "age; second; third" in (tmp_path / "fewer" / "predictions.csv").read_text()
    run(make_model(study_of(), "plain"), [str(pictures / "a")], tmp_path / "plain-out")
    assert "missing" not in (tmp_path / "plain-out" / "predictions.csv").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [(["absent.png"], "there is no file"), (["empty"], "holds no image")],
)
def test_an_input_that_is_not_there_is_said_before_anything_is_done(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=said):
        find_inputs(given, study_of())


def test_names_that_differ_in_capitals_alone_are_two_names(tmp_path: Path) -> None:
    for folder in ("x", "X2"):
        (tmp_path / folder).mkdir()
    for name in ("x/scan.png", "X2/SCAN.png", "X2/scan_.png"):
        (tmp_path / name).touch()
    names = names_of(find_inputs([str(tmp_path)], study_of()), {})
    assert len({name.casefold() for name in names}) == 3


def test_a_run_folder_stands_for_its_federated_model_or_for_its_sites(tmp_path: Path) -> None:
    for name in ("federated", "local-north", "local-south"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "contract.json").touch()
    assert [p.name for p in model_folders(tmp_path, (), False)] == ["federated"]
    assert [p.name for p in model_folders(tmp_path, (), True)] == ["local-north", "local-south"]
    with pytest.raises(ModelError, match="is no run folder"):
        model_folders(tmp_path / "models" / "federated", (), True)
