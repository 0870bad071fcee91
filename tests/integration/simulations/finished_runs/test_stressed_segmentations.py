"""``wardround stress`` on segmentations: slices, and volumes seen through windows."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import wardround as package
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.run_files.folder import RunFacts, write_facts
from wardround.simulations.run_files.stress import read_attacks, read_corruptions, read_examples
from wardround.simulations.sites.preparation import prepare_sites

QUICK = ("--only", "gaussian-blur", "--only", "motion", "--severities", "1,5", "--attacks")
ATTACKS = ("--epsilons", "8,32", "--steps", "2", "--restarts", "2")


def write_slices(folder: Path, number: int, mask: np.ndarray, grey: np.ndarray) -> tuple[str, str]:
    names = f"image{number}.png", f"mask{number}.png"
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / names[0])
    Image.fromarray(mask.astype(np.uint8)).save(folder / names[1])
    return names


def write_volumes(folder: Path, number: int, mask: np.ndarray, grey: np.ndarray) -> tuple[str, str]:
    names = f"image{number}.nii.gz", f"mask{number}.nii.gz"
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(grey.astype(np.float32), affine), folder / names[0])
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / names[1])
    return names


def write_run(folder: Path, dimensions: int) -> Path:
    """Write what a finished run of untrained models leaves."""
    data = folder / "data"
    data.mkdir(parents=True)
    shape, generator = (20, 24, 12)[:dimensions], np.random.default_rng(0)
    write = write_slices if dimensions == 2 else write_volumes
    rows = [("patient", "image", "mask", "site", "split")]
    for number in range(8):
        mask = np.zeros(shape)
        mask[tuple(slice(4, 9) for _ in shape)] = 1
        grey = 60 + 90 * mask + generator.normal(0, 5, shape)
        grey[:2] = 0
        names = write(data, number, mask, grey)
        site, split = ("north", "south")[number // 4], ("train", "validation", "test", "test")
        rows.append((f"p{number}", *names, site, split[number % 4]))
    manifest = data / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    study = study_of(dimensions, manifest)
    run = folder / "run"
    run.mkdir()
    prepare_sites(study, run, None, None, False)
    (run / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    for seed, name in enumerate(("federated", "local-north", "local-south")):
        weights = read_parameters(build_network(study, seed))
        contract = Contract(
            wardround=package.__version__,
            name=name,
            run="00000000",
            round=1,
            study=study_content(study),
            study_digest=study.digest,
            parameters=digest(weights),
            complete=True,
        )
        write_model_folder(run / "models" / name, weights, contract, (), ("card", "licence"))
    facts = RunFacts("0.1.0", ("wardround",), study.digest, 0, "2026-11-28", status="finished")
    write_facts(run, facts)
    return run


def study_of(dimensions: int, manifest: Path) -> Study:
    training = {"patch_size": [16, 16, 8]} if dimensions == 3 else {}
    return parse_study(
        {
            "study": {"name": "squares", "task": "segmentation"},
            "data": {
                "classes": ["background", "square"],
                "dimensions": dimensions,
                "intensity": "mr" if dimensions == 3 else "xray",
                **({"size": [16, 16]} if dimensions == 2 else {}),
            },
            "model": {"network": "unet", "features": [4, 8], "normalisation": "instance"},
            "training": {"batch_size": 2, **training},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "options": {"manifest": str(manifest)},
            },
        }
    )


@pytest.mark.long
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_segmentation_is_stressed_slice_or_volume(
    dimensions: int, tmp_path: Path, wardround
) -> None:
    run = write_run(tmp_path, dimensions)
    said = wardround("stress", run, *QUICK, *ATTACKS)
    assert said.code == 0, said.err
    rows = read_corruptions(run)
    assert {row.model for row in rows} == {"federated", "local"}
    assert all(0 <= row.error <= 1 for row in rows)
    assert len({row.error for row in rows if row.site == "north"}) > 1
    left = {
        (row.attack, row.epsilon, row.restarts): row.value
        for row in read_attacks(run)
        if row.site == "all sites"
    }
    assert {row.measure for row in read_attacks(run)} == {"dice"}
    clean = left["none", 0.0, 0]
    for epsilon in (8.0, 32.0):
        assert left["pgd", epsilon, 2] <= clean + 0.02
    assert left["pgd", 32.0, 2] < clean
    assert "mean Dice" in said.out
    examples = read_examples(run)
    assert examples is not None
    assert examples.images.ndim == 3
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<section id="corruptions">' in page
