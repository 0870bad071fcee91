"""``wardround explain-predictions`` as documented: on pictures, a table, a segmentation."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.model_file import save_model
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import load_study
from wardround.simulations.report.samples import read_samples
from wardround.simulations.run_files.explanations import (
    read_explanations,
    read_features,
    read_maps,
)
from wardround.simulations.run_files.folder import RunFacts, write_facts
from wardround.simulations.run_files.predictions import read_lesions, read_masks
from wardround.simulations.sites.preparation import prepare_sites

TABLE = """
[study]
name = "table"
task = "classification"

[data]
kind = "table"
classes = ["no", "yes"]
covariates = [{name = "age", mean = 50, scale = 10}, {name = "sex", values = ["f", "m"]}]

[model]
network = "mlp"
features = [4]

[federation]
rounds = 1

[simulation]
data = "folder"
split = "natural"

[simulation.options]
manifest = "MANIFEST"
"""


def untrained_run(study_file: Path, folder: Path, *models: str) -> Path:
    """Write what a finished simulation leaves that is explained, with untrained models."""
    study = load_study(study_file)
    folder.mkdir()
    prepare_sites(study, folder, None, None, False)
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    facts = RunFacts("0", ("wardround", "simulate"), study.digest, 0, "2026-11-23", "finished")
    write_facts(folder, facts)
    (folder / "models").mkdir()
    for seed, name in enumerate(models):
        parameters = read_parameters(build_network(study, seed))
        said = {"round": "2", "model": name, "run": "r"}
        save_model(folder / "models" / f"{name}.safetensors", parameters, said)
    return folder


def add_masks(tiny, column: str = "lesion_mask") -> None:
    """Outline the bright square of every picture, as pictures and as a column of the manifest."""
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    (tiny.folder / "masks").mkdir()
    rows = list(csv.reader(tiny.manifest.open(encoding="utf-8")))
    rows[0].append(column)
    for number, row in enumerate(rows[1:]):
        path = tiny.folder / "masks" / f"{tiny.picture(number).stem}_segmentation.png"
        picture = Image.fromarray(mask)
        if number % 2:  # the same to the eye, with an upside-down palette
            picture = Image.fromarray(255 - mask)
            picture.putpalette([part for grey in range(255, -1, -1) for part in (grey,) * 3])
        picture.save(path)
        row.append(f"masks/{path.name}")
    with tiny.manifest.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def test_maps_of_a_run_with_what_their_checks_say(tiny_study, tmp_path: Path, wardround) -> None:
    add_masks(tiny_study)
    names = ("federated", "local-north", "local-south")
    run = untrained_run(tiny_study.study, tmp_path / "run", *names)

    header = (run / "sites" / "north" / "manifest.csv").read_text("utf-8").splitlines()[0]
    assert "lesion_mask" in header.split(",")

    said = wardround("explain-predictions", run, "--method", "integrated-gradients", "--json")

    assert said.code == 0, said.err
    rows = read_explanations(run, "integrated-gradients")
    assert {row.site for row in rows} == {"north", "south"}
    assert len(rows) == 4
    for row in rows:
        assert row.area == pytest.approx(0.25)
        assert 0 <= row.inside <= 1
        assert row.completeness_error <= 0.05
        assert -1 <= row.last_layer <= 1
        assert -1 <= row.agreement_rank <= 1
        assert np.isnan(row.repeatability)
    maps = read_maps(run, "integrated-gradients")
    assert maps is not None
    assert maps.maps.shape == (4, 16, 16)
    told = json.loads(said.out)
    assert told["method"] == "integrated-gradients"
    assert len(told["rows"]) == 4
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Where did the model look?" in page
    heard = (
        said.out
        + said.err
        + page
        + (run / "explanations").joinpath("integrated-gradients.csv").read_text(encoding="utf-8")
    )
    assert "CANARY" not in heard


def test_one_site_and_masks_of_a_folder_or_another_column(
    tiny_study, tmp_path: Path, wardround
) -> None:
    add_masks(tiny_study, "outline")
    run = untrained_run(tiny_study.study, tmp_path / "run", "federated")
    words = ("explain-predictions", run, "--site", "south", "--cases", "1")
    for masks in (tiny_study.folder / "masks", "outline"):
        assert wardround(*words, "--masks", masks).code == 0
        (row,) = read_explanations(run, "hires-cam")
        assert (row.site, row.area) == ("south", pytest.approx(0.25))
    said = wardround(*words, "--masks", "outlines")
    assert said.code == 2
    assert "neither a folder nor a column" in said.err
    assert "outline" in said.err


def test_wrong_words_are_answered_with_what_there_is(tiny_study, tmp_path: Path, wardround) -> None:
    run = untrained_run(tiny_study.study, tmp_path / "run", "federated")
    for words, told in (
        (("--method", "gradcam"), "Known: dropout, ensemble, entropy, grad-cam"),
        (("--method", "entropy"), "use hires-cam or grad-cam or integrated-gradients or occlusion"),
        (("--site", "west"), "Known: north, south"),
        (("--model", "pooled"), "Known: federated"),
    ):
        said = wardround("explain-predictions", run, *words)
        assert (said.code, "Traceback" in said.err) == (2, False)
        assert told in " ".join(said.err.split())


def test_a_run_without_models_says_how_to_get_them(tiny_study, tmp_path: Path, wardround) -> None:
    run = untrained_run(tiny_study.study, tmp_path / "run")
    said = wardround("explain-predictions", run)
    assert said.code == 2
    assert "holds no finished model" in said.err
    assert "holds no run" in wardround("explain-predictions", tmp_path).err


def test_a_table_has_no_map_but_says_how_much_each_value_speaks(tmp_path: Path, wardround) -> None:
    manifest, file = tmp_path / "manifest.csv", tmp_path / "study.toml"
    rows = ["patient,label,age,sex,site,split"]
    for number in range(20):
        split = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2
        label, sex = ("no", "yes")[number % 2], "fm"[number % 2]
        site = ("a", "b")[number // 10]
        rows.append(f"p{number},{label},{40 + number},{sex},{site},{split[number % 10]}")
    manifest.write_text("\n".join(rows), encoding="utf-8")
    file.write_text(TABLE.replace("MANIFEST", str(manifest)), encoding="utf-8")
    run = untrained_run(file, tmp_path / "run", "federated")

    refused = wardround("explain-predictions", run, "--method", "grad-cam")
    said = wardround("explain-predictions", run)

    assert refused.code == 2
    assert "a table, which has no map: use integrated-gradients" in " ".join(refused.err.split())
    assert said.code == 0, said.err
    features = read_features(run, "integrated-gradients")
    assert {row.covariate for row in features} == {"age", "sex"}
    assert read_maps(run, "integrated-gradients") is None
    assert "how much each clinical value speaks" in (run / "report.html").read_text("utf-8")


def make_segmentation(tiny) -> None:
    """Make a study of the bright squares' outlines of the tiny pictures."""
    add_masks(tiny, "mask")
    for old, new in (
        ('task = "classification"', 'task = "segmentation"'),
        ('classes = ["normal", "abnormal"]', 'classes = ["background", "square"]'),
        ('network = "small-cnn"', 'network = "unet"'),
        ("features = [4, 8]", "features = [8, 16]"),
    ):
        tiny.change_study(old, new)
    for path in (tiny.folder / "masks").iterdir():  # masks to train on say it by index
        Image.fromarray((np.asarray(Image.open(path).convert("L")) > 127).astype("u1")).save(path)


def test_a_segmentation_says_where_it_is_unsure(tiny_study, tmp_path: Path, wardround) -> None:
    make_segmentation(tiny_study)
    run = untrained_run(tiny_study.study, tmp_path / "run", "federated", "local-north")

    for method in ("entropy", "test-time-augmentation"):
        said = wardround("explain-predictions", run, "--method", method, "--cases", 1)
        assert said.code == 0, said.err
    refused = wardround("explain-predictions", run, "--method", "ensemble")

    assert refused.code == 2
    assert "two or more sites" in " ".join(refused.err.split())
    assert "Where is the model unsure?" in (run / "report.html").read_text("utf-8")


@pytest.mark.long
def test_a_run_of_a_segmentation_keeps_lesions_and_its_worst_cases(
    tiny_study, tmp_path: Path, wardround
) -> None:
    make_segmentation(tiny_study)
    out = tmp_path / "run"

    said = wardround(
        "simulate", tiny_study.study, "--rounds", 1, "--no-compare", "--quiet",
        "--engine", "in-process", "--device", "cpu", "--out", out,
    )  # fmt: skip

    assert said.code == 0, said.err
    found = read_masks(out, ("square",))["federated", "north", "test"]
    assert found.lesions_true.tolist() == [[1.0], [1.0]]
    assert np.isnan(
        read_masks(out, ("square",))["federated", "north", "validation"].lesions_true
    ).all()
    lesions = read_lesions(out)
    assert [row.ml for row in lesions] == pytest.approx([0.064] * 4)
    samples = read_samples(out / "failures.npz")
    assert samples is not None
    assert sorted(samples.site) == ["north", "north", "south", "south"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Are the marks right where it matters?" in page
    assert "Bland-Altman" in page
    assert "CANARY" not in page


@pytest.mark.long
def test_a_mask_that_is_missing_or_of_another_size_is_named_by_its_row(
    tiny_study, tmp_path: Path, wardround
) -> None:
    add_masks(tiny_study)
    run = untrained_run(tiny_study.study, tmp_path / "run", "federated")
    words = ("explain-predictions", run, "--site", "south", "--cases", "1")
    mask = tiny_study.folder / "masks" / f"{tiny_study.picture(18).stem}_segmentation.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)

    other_size = wardround(*words)
    mask.unlink()
    missing = wardround(*words)

    for said in (other_size, missing):
        assert said.code == 2, said.err
        assert "row 20" in said.err
        assert "CANARY" not in said.err
        assert "Traceback" not in said.err


def test_a_damaged_table_of_explanations_is_said_by_the_report(
    tiny_study, tmp_path: Path, wardround
) -> None:
    run = untrained_run(tiny_study.study, tmp_path / "run", "federated")
    (run / "explanations").mkdir()
    (run / "explanations" / "occlusion.csv").write_text("method,site\nocclusion,north\n", "utf-8")

    said = wardround("report", run)

    assert said.code == 2
    assert "run wardround explain-predictions again" in " ".join(said.err.split())
