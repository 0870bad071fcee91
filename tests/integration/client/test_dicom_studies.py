"""DICOM as hospitals have it, through the command that trains on it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.clinic.dicom_objects import ct_slice, save, save_ct, segmentation, structures
from tests.support.studies.tiny_study import Said

from wardround.client.data.manifest.manifest import read_manifest
from wardround.client.data.preprocessing.case import Case
from wardround.client.data.preprocessing.preprocessing import prepare_case
from wardround.client.site.folder import open_site
from wardround.common.study.loading import load_study

STUDY = """
[study]
name = "dicom"
task = "segmentation"

[data]
dimensions = 3
classes = ["background", "liver", "tumour"]
size = [8, 8, 8]
fit = "pad"
orientation = "LPS"

[model]
network = "unet"
features = [4, 8]
normalisation = "group"

[training]
batch_size = 1
local_epochs = 1

[federation]
rounds = 1

[evaluation]
metric = "dice"

[simulation]
data = "folder"
split = "iid"
sites = 1
compare = false

[simulation.options]
manifest = "manifest.csv"
"""


def prepared(study: Path, out: Path) -> list[Case]:
    """Return what the network saw of each row, in the manifest's order."""
    site = open_site(out / "sites" / "hospital-1")
    loaded = load_study(study)
    rows = read_manifest(site, loaded)
    cases = {row.patient: prepare_case(row, site, loaded) for row in rows}
    return [cases[patient] for patient in sorted(cases)]


def trained(folder: Path, out: Path, wardround: Callable[..., Said]) -> list[Case]:
    said = wardround("simulate", folder / "study.toml", "--engine", "in-process", "--out", out)
    assert said.code == 0, said.err
    return prepared(folder / "study.toml", out)


def bar() -> np.ndarray:
    """A bar in a volume (slices, rows, columns): liver below, tumour above."""
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:4, 2:4, 2:6] = 1
    labels[4:7, 2:4, 2:6] = 2
    return labels


def box(z: float) -> list[list[float]]:
    return [[1.5, 1.5, z], [5.5, 1.5, z], [5.5, 3.5, z], [1.5, 3.5, z]]


def test_masks_as_archives_hold_them_are_trained_on(
    tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    labels = bar()
    volume = (labels.astype(np.int16) * 500) - 1000
    for number in range(4):
        folder = save_ct(tmp_path / f"ct{number}", volume)
        # Another series in the same folder, and what a Mac adds.
        other = ct_slice(volume[0], (0, 0, 0), SeriesInstanceUID="1.5", SeriesNumber=9)
        save(other, folder / "other.dcm")
        (folder / "._IM000.dcm").write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
    frames = [
        (value, (0, 0, 2.0 * z), labels[z] == value) for value in (2, 1) for z in range(7, -1, -1)
    ]
    full = [frame for frame in frames if frame[2].any()]
    save(segmentation(full, ["Liver", "Tumour"]), tmp_path / "seg.dcm")
    outlines = {"LIVER": [box(z) for z in (2, 4, 6)], "Tumour": [box(z) for z in (8, 10, 12)]}
    save(structures(outlines), tmp_path / "rt.dcm")
    rows = ["patient,image,mask,split"]
    for number, (mask, split) in enumerate(
        [("seg.dcm", "train"), ("rt.dcm", "train"), ("seg.dcm", "validation"), ("rt.dcm", "test")]
    ):
        rows.append(f"p{number},ct{number}#series=3,{mask},{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    cases = trained(tmp_path, tmp_path / "out", wardround)
    assert len(cases) == 4
    for case in cases:
        assert case.mask is not None
        np.testing.assert_array_equal(case.mask.numpy(), labels.transpose(2, 1, 0))
        np.testing.assert_array_equal(case.image.numpy()[0], volume.transpose(2, 1, 0))


def test_a_refusal_names_the_row_and_no_patient(
    tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    volume = (bar().astype(np.int16) * 500) - 1000
    save_ct(tmp_path / "SECRETNAME", volume)
    seg = segmentation([(1, (0, 0, 2.0), bar()[1] == 1), (2, (0, 0, 8.0), bar()[4] == 2)], ["a"])
    save(seg, tmp_path / "seg.dcm")
    rows = [f"p{n},SECRETNAME,seg.dcm,{s}" for n, s in enumerate(("train", "validation", "test"))]
    manifest = "\n".join(["patient,image,mask,split", *rows])
    (tmp_path / "manifest.csv").write_text(manifest, encoding="utf-8")
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    said = wardround(
        "simulate", tmp_path / "study.toml", "--engine", "in-process", "--out", tmp_path / "out"
    )
    assert said.code == 2
    words = " ".join(said.err.split())
    assert "row 2, column mask: " in words
    assert "name that is no class of the study" in words
    assert "SECRETNAME" not in words
    assert "Canary" not in words


def ball_is_round(cases: list[Case]) -> None:
    for case in cases:
        image = case.image.numpy()[0]
        inside = np.clip(image / image.max(), 0, 1)
        places = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
        places = places * case.spacing
        centre = (inside[..., None] * places).sum((0, 1, 2)) / inside.sum()
        spread = np.einsum("xyz,xyzi,xyzj->ij", inside, places - centre, places - centre)
        spread /= inside.sum()
        np.testing.assert_allclose(spread, np.eye(3) * 158, atol=12)


def colours_are_alike(cases: list[Case], folder: Path) -> None:
    wanted = np.load(folder / "reference.npy").transpose(2, 0, 1) / 255
    for case in cases:
        np.testing.assert_allclose(case.image.numpy(), wanted, atol=1e-6)


def slices_are_all_there(cases: list[Case]) -> None:
    for case in cases:
        np.testing.assert_array_equal(case.image.numpy(), cases[1].image.numpy())
    depths = cases[0].image.numpy()[0].max((0, 1))
    assert (depths > 0).all()


def labels_lie_on(cases: list[Case], depths: dict[int, range], voxels: int) -> None:
    for case in cases:
        assert case.mask is not None
        mask = case.mask.numpy()
        assert set(np.unique(mask)) == {0, *depths}
        for label, places in depths.items():
            assert set(np.argwhere(mask == label)[:, 2]) == set(places)
            assert (mask == label).sum() == voxels


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("04-dicom-gantry-tilt", lambda cases, folder: ball_is_round(cases)),
        ("13-dicom-palette-colour", colours_are_alike),
        ("19-dicom-folder-partly-without-preamble", lambda cases, f: slices_are_all_there(cases)),
        (
            "21-dicom-seg-two-segments",
            lambda cases, folder: labels_lie_on(cases, {1: range(8), 2: range(8, 16)}, 504),
        ),
        (
            "22-dicom-seg-sparse",
            lambda cases, folder: labels_lie_on(cases, {1: range(5, 11)}, 378),
        ),
    ],
)
def test_cases_of_public_reports_are_right(
    tmp_path: Path,
    shared_data: Path,
    wardround: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    check: Callable[[list[Case], Path], None],
) -> None:
    folder = shared_data.parent / "cases" / name
    if not folder.is_dir():
        pytest.skip("the cases of public reports are absent")
    monkeypatch.chdir(folder)
    check(trained(folder, tmp_path / "out", wardround), folder)
