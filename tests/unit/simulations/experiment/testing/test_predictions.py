"""What each model said of each examination: the same numbers as the run's own sums."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wardround.client.data.cohorts import open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.training.evaluation import evaluate
from wardround.client.training.losses.registry import build_loss
from wardround.common.metrics.sums import summarise
from wardround.common.parameters.schema import read_parameters, write_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.predictions import write_predictions
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.predictions import (
    Key,
    Masks,
    Scores,
    read_masks,
    read_scores,
)

CPU = torch.device("cpu")
SPLITS = ("train", "validation", "test", "test", "test")


def study_of(task: str) -> Study:
    classes = ["none", "a", "b"] if task == "classification" else ["background", "vessel"]
    network = {"network": "small-cnn"} if task == "classification" else {"network": "unet"}
    return parse_study(
        {
            "study": {"name": "eyes", "task": task},
            "data": {"classes": classes, "size": [16, 16], "intensity": "none"},
            "model": network if task == "classification" else {**network, "features": [4, 8]},
        }
    )


def site_folder(folder: Path, seed: int) -> Path:
    """Write five images of four patients: the last two are of one."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    rows = ["patient,image,mask,label,split"]
    for number, split in enumerate(SPLITS):
        pixels = generator.integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[4 : 5 + number] = 1
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        label = ("none", "a", "b")[number % 3]
        rows.append(f"p{min(number, 3)},{number}.png,{number}_mask.png,{label},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n')
    return folder


def models_of(study: Study, sites: tuple[str, ...]) -> list[TrainedModel]:
    found = []
    for seed, name in enumerate(("federated", *(f"local-{site}" for site in sites))):
        context = ModelContext.build(
            study.model_copy(
                update={"federation": study.federation.model_copy(update={"seed": seed})}
            ),
            "cpu",
        )
        found.append(TrainedModel(name, "0" * 32, 1, read_parameters(context.network)))
    return found


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [site_folder(tmp_path / name, seed) for seed, name in enumerate(("north", "south"))]


def measured(study: Study, folder: Path, model: TrainedModel) -> Mapping[str, float]:
    """Return a round's own measure of a model, by metric, over all classes."""
    context = ModelContext.build(study, "cpu")
    write_parameters(context.network, model.parameters)
    cohort = open_cohorts(open_site(folder), study).test
    loss = build_loss(study, None, CPU)
    sums = evaluate(context.network, cohort, study, CPU, loss, surfaces=True)
    return {value.metric: value.value for value in summarise(sums, study) if not value.class_name}


def test_scores_give_the_accuracy_that_the_run_measured(
    folders: list[Path], tmp_path: Path
) -> None:
    study = study_of("classification")
    models = models_of(study, ("north", "south"))
    write_predictions(tmp_path, folders, study, models)
    found: Mapping[Key, Scores] = read_scores(tmp_path, study.data.classes)
    scores = found["federated", "north", "test"]
    assert scores.cases.tolist() == [4, 5, 6]
    assert scores.patients.tolist() == [0, 1, 1]
    right = scores.labels[np.arange(3), scores.scores.argmax(axis=1)].mean()
    assert right == pytest.approx(measured(study, folders[0], models[0])["accuracy"])
    assert scores.scores.sum(axis=1) == pytest.approx(1.0)
    assert ("local-south", "north", "test") not in found  # who asks whom stays readable
    both = [
        found["local-north", "north", "validation"].scores,
        found["ensemble", "north", "validation"].scores * 2
        - found["local-north", "north", "validation"].scores,
    ]
    assert both[1].min() >= -1e-9
    assert both[1].sum(axis=1) == pytest.approx(1.0)  # the other site's own model


def test_cases_give_the_dice_that_the_run_measured(folders: list[Path], tmp_path: Path) -> None:
    study = study_of("segmentation")
    models = models_of(study, ("north", "south"))
    write_predictions(tmp_path, folders, study, models)
    found: Mapping[Key, Masks] = read_masks(tmp_path, study.data.classes[1:])
    masks = found["federated", "south", "test"]
    expected = measured(study, folders[1], models[0])
    assert np.nanmean(masks.dice) == pytest.approx(expected["dice"])
    assert np.nanmean(masks.surface_dice) == pytest.approx(expected["surface-dice"])
    # Rows 4 to 8 of 16 pixels, each 1 x 1 x 1 mm.
    assert masks.truth_ml[:, 0].tolist() == pytest.approx([0.048, 0.064, 0.08])
    assert np.isnan(found["federated", "south", "validation"].surface_dice).all()


def test_a_table_whose_classes_are_another_study_s_is_refused(
    folders: list[Path], tmp_path: Path
) -> None:
    study = study_of("classification")
    write_predictions(tmp_path, folders, study, models_of(study, ("north",)))
    with pytest.raises(ValueError, match="classes"):
        read_scores(tmp_path, ("none", "b", "a"))


def test_a_model_that_is_trained_on_before_each_test_leaves_none(
    folders: list[Path], tmp_path: Path
) -> None:
    study = study_of("classification")
    federation = study.federation.model_copy(update={"strategy": "fedavg-finetune"})
    tuned = study.model_copy(update={"federation": federation})
    write_predictions(tmp_path, folders, tuned, models_of(study, ("north",)))
    assert not (tmp_path / "predictions.csv").exists()
