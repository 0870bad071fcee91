"""Some test images of a run with what the federated model makes of them; public data only."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.client.data.batch import Batch
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.preprocessing.geometry import axis_codes
from wardround.client.data.preprocessing.preprocessing import prepare_case
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import Site, open_site
from wardround.client.site.state import SiteState
from wardround.client.tasks.registry import task_of
from wardround.client.training.evaluation import predict
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.sections.data import AS_STORED, COMMON_ORIENTATION
from wardround.common.study.sections.harmonisation import HarmonisationSection
from wardround.common.study.study import Study
from wardround.simulations.experiment.training import TrainedModel

PICTURES = 8  # one screen of the report
_WORLD_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True, slots=True)
class _Sample:
    """One picture, upright: a 2D image or the fullest slice of a volume, scaled to 0..1.

    Attributes:
        sides: What lies at its left and at its right edge, e.g. "RL"; "" where that is not known.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.uint8] | NDArray[np.float32] | int
    prediction: NDArray[np.uint8] | NDArray[np.float32] | int
    site: str
    score: float
    sides: str = ""


def write_samples(path: Path, folders: Sequence[Path], study: Study, model: TrainedModel) -> None:
    """Write the first test examinations of every site, with truth and prediction.

    A study of a table, of several labels, or of numbers has no such pictures: no file is written.

    Args:
        model: The federated one, which each site completes where it has a part of its own.
    """
    one_class_each = study.task.dense or study.task.classifies or study.task.column == "boxes"
    if study.data.kind == "table" or study.data.multi_label or not one_class_each:
        return
    context = ModelContext.build(study, "cpu")
    context.network.eval()
    each = max(1, PICTURES // len(folders))
    samples = [s for folder in folders[:PICTURES] for s in _of_site(folder, context, model, each)]
    _save(path, samples)


def _save(path: Path, samples: Sequence[_Sample]) -> None:
    if not samples:
        return
    height = max(sample.image.shape[0] for sample in samples)
    width = max(sample.image.shape[1] for sample in samples)
    arrays = {
        "images": np.stack([_padded(s.image, height, width) for s in samples]),
        "truth": _stack([s.truth for s in samples], height, width),
        "prediction": _stack([s.prediction for s in samples], height, width),
        "site": np.array([s.site for s in samples]),
        "score": np.array([s.score for s in samples], dtype=np.float32),
        "sides": np.array([s.sides for s in samples], dtype="U2"),
    }
    np.savez_compressed(path, allow_pickle=False, **arrays)


def write_failures(
    path: Path,
    folders: Sequence[Path],
    study: Study,
    model: TrainedModel,
    worst: Mapping[str, Sequence[int]],
) -> None:
    """Write the worst test examinations of every site of a segmentation, as :func:`write_samples`.

    Args:
        model: The federated one.
        worst: By site, rows of its manifest.
    """
    if not study.task.dense or study.data.kind == "table" or not worst:
        return
    context = ModelContext.build(study, "cpu")
    context.network.eval()
    samples = [
        sample
        for folder in folders[:PICTURES]
        for sample in _of_site(folder, context, model, 0, worst.get(folder.name, ()))
    ]
    _save(path, samples)


def length_unit(folders: Sequence[Path], study: Study) -> str:
    """Return the unit of distances between surfaces, by the first test image of each site.

    A photograph says nothing of its size: its distances are counted in pixels as it was stored.
    """
    if not study.task.dense or study.data.spacing is not None:
        return "mm"
    unsized = "pixels" if study.data.dimensions == 2 else "voxels"
    units = set()
    for folder in folders:
        for examination in open_cohorts(open_site(folder), study).test.examinations[:1]:
            image = read_image(examination.held_images[0], study.data.dimensions, study.data.colour)
            units.add(unsized if image.spacing is None else "mm")
    return " or ".join(sorted(units)) or "mm"


def _of_site(
    folder: Path,
    context: ModelContext,
    model: TrainedModel,
    count: int,
    rows: Sequence[int] | None = None,
) -> Iterator[_Sample]:
    """Yield some test examinations of a site: so many, or those of some rows of its manifest."""
    site, study = open_site(folder), context.study
    state = SiteState(site.state_folder, study.digest, model.run)
    write_parameters(context.network, context.own_model(state, model.round, model.parameters))
    cohort = open_cohorts(site, study).test
    # Spread over the cohort, so that not all are of the class that happens to come first.
    if rows is None:
        places = np.linspace(0, len(cohort) - 1, min(count, len(cohort)), dtype=int).tolist()
    else:
        place_of = {examination.row: i for i, examination in enumerate(cohort.examinations)}
        places = [place_of[row] for row in rows]
    for index in places:
        batch = cohort.case(index)
        with torch.inference_mode():
            logits = predict(context.network, batch, study)
        examination = cohort.examinations[index]
        shown = as_stored(examination, batch, site, study)
        sample = _sample(shown, logits, study, axes_of(examination, study))
        yield replace(sample, site=site.name)


def as_stored(examination: Examination, batch: Batch, site: Site, study: Study) -> Batch:
    """Return the batch of one with its image as it was, on the grid that the network sees.

    Normalised colours are false ones. A CT keeps its window, without which it shows nothing.
    """
    if study.data.intensity == "ct":
        return batch
    plainly = {"intensity": "none", "denoise": False, "harmonisation": HarmonisationSection()}
    data = study.data.model_copy(update=plainly)
    plain = prepare_case(examination, site, study.model_copy(update={"data": data}))
    return Batch(plain.image[None], batch.covariates, batch.targets)


def axes_of(examination: Examination, study: Study) -> str:
    """Return where the axes of a prepared image point to, e.g. "RAS"; "" where nothing says so."""
    data = study.data
    try:
        image = read_image(examination.held_images[0], data.dimensions, data.colour)
    except UnreadableError:  # it was read before: a picture is not worth a run
        return ""
    if image.affine is None:
        return ""
    if data.dimensions == 3 and data.orientation != AS_STORED:
        return data.orientation or COMMON_ORIENTATION
    return axis_codes(image.affine)


def _sample(batch: Batch, logits: torch.Tensor, study: Study, axes: str) -> _Sample:
    if batch.images is None:
        msg = "a sample needs an image"
        raise ValueError(msg)
    image, truth = batch.images[0], batch.targets[0]
    if study.task.column == "boxes":
        return _boxed(image, truth, logits[0], study, axes)
    prediction = task_of(study).decide(logits, study)[0]
    if not study.task.dense:
        best = int(prediction)
        score = float(logits[0].float().softmax(0)[best])
        if image.ndim == 4:
            image = image[..., image.shape[-1] // 2]
        image, sides = upright(image, axes, study)
        return _Sample(as_picture(image, study), int(truth), best, "", score, sides)
    ignored = truth >= study.class_count
    truth, prediction = (part.masked_fill(ignored, 0) for part in (truth, prediction))
    if truth.ndim == 3:
        slice_index = int((truth > 0).sum(dim=(0, 1)).argmax())
        image, truth, prediction = (p[..., slice_index] for p in (image, truth, prediction))
    score = _dice(prediction, truth, study.class_count)
    (image, sides), (truth, _), (prediction, _) = (
        upright(part, axes, study) for part in (image, truth, prediction)
    )
    picture = as_picture(image, study)
    return _Sample(picture, _bytes(truth), _bytes(prediction), "", score, sides)


def _boxed(
    image: torch.Tensor, truth: torch.Tensor, found: torch.Tensor, study: Study, axes: str
) -> _Sample:
    """Return a picture with its boxes: a row is class, top, left, bottom, right, score.

    Args:
        image: ``(C, *spatial)``.
        truth: ``(M, 1 + 2 dims)``.
        found: ``(P, 2 + 2 dims)``, the score first.
    """
    dims = image.ndim - 1
    true_boxes = torch.cat([truth, torch.ones(len(truth), 1)], dim=1)
    boxes = [true_boxes, torch.cat([found[:, 1:], found[:, :1]], dim=1).cpu()]
    boxes = [rows[rows[:, 0] >= 0] for rows in boxes]
    if dims == 3:
        # The slice through the middle of the first true box, and the boxes that it cuts.
        middle = float(boxes[0][0, [3, 6]].mean()) if len(boxes[0]) else image.shape[-1] / 2
        image = image[..., min(int(middle), image.shape[-1] - 1)]
        boxes = [
            rows[(rows[:, 3] <= middle) & (middle < rows[:, 6])][:, [0, 1, 2, 4, 5, 7]]
            for rows in boxes
        ]
    shown, sides = upright(image, axes, study)
    turned = [_upright_boxes(rows, image.shape[-2:], axes, study) for rows in boxes]
    return _Sample(as_picture(shown, study), turned[0], turned[1], "", math.nan, sides)


def _upright_boxes(
    rows: torch.Tensor, shape: Sequence[int], axes: str, study: Study
) -> NDArray[np.float32]:
    """Return boxes ``(M, 6)`` where :func:`upright` puts the pixels that they are about."""
    height, width = shape
    places = torch.arange(height * width).reshape(height, width)
    turned, _ = upright(places, axes, study)
    first, last = int(turned[0, 0]), int(turned[-1, -1])
    top, left, bottom, right = rows[:, 1:5].unbind(1)
    if first // width > last // width:
        top, bottom = height - bottom, height - top
    if first % width > last % width:
        left, right = width - right, width - left
    is_swapped = turned.shape[0] > 1 and int(turned[1, 0]) // width == first // width
    sides = (left, top, right, bottom) if is_swapped else (top, left, bottom, right)
    moved = torch.stack([rows[:, 0], *sides, rows[:, 5]], dim=1)
    return np.asarray(moved.numpy(), dtype=np.float32)


def upright(plane: torch.Tensor, axes: str, study: Study) -> tuple[torch.Tensor, str]:
    """Return a slice as radiology shows it, and what lies at its left and at its right edge.

    The patient's front (from the side: head) is on top, the right (from the side: front) left.

    Args:
        plane: ``(..., first axis, second axis)`` of the image that a network sees.
        axes: Where its axes point to, e.g. "RAS"; "" where the files do not say. An array of a
            volume is then taken to have its axes to the right, the front and the head.
        study: Says whether it is a slice of a volume.
    """
    known = len(axes) >= 2 and "?" not in axes[:2]
    if not known:
        if study.data.dimensions == 2:
            return plane, ""
        axes = COMMON_ORIENTATION
    if _WORLD_AXIS[axes[0]] < _WORLD_AXIS[axes[1]]:  # the rows of a picture are the higher one
        plane, axes = plane.transpose(-1, -2), axes[1] + axes[0]
    flips = [place - 2 for place in (0, 1) if axes[place] in "RAS"]
    sides = "RL" if axes[1] in "RL" else "AP"
    return plane.flip(flips), sides if known else ""


def as_picture(image: torch.Tensor, study: Study) -> NDArray[np.float32]:
    """Return an image ``(C, *spatial)`` scaled to 0..1, of a volume the middle slice, upright."""
    if image.ndim == 4:
        image, _ = upright(image[..., image.shape[-1] // 2], "", study)
    planes = image.float().movedim(0, -1).numpy() if study.data.colour else image[0].float().numpy()
    if study.data.colour and planes.min() >= 0 and planes.max() <= 1:
        return np.asarray(planes[..., :3], dtype=np.float32)  # a photograph's own colours
    low, high = np.percentile(planes, (0.5, 99.5))
    scaled = np.clip((planes - low) / max(high - low, 1e-6), 0, 1)
    return np.asarray(scaled[..., :3] if study.data.colour else scaled, dtype=np.float32)


def _dice(found: torch.Tensor, truth: torch.Tensor, classes: int) -> float:
    """Return the mean Dice of the foreground classes that the truth holds; NaN where none."""
    values = []
    for index in range(1, classes):
        a, b = found == index, truth == index
        if b.any():
            values.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
    return sum(values) / len(values) if values else math.nan


def _bytes(labels: torch.Tensor) -> NDArray[np.uint8]:
    return labels.to(torch.uint8).numpy()


def _padded(array: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    missing = [(0, height - array.shape[0]), (0, width - array.shape[1])]
    return np.pad(array, missing + [(0, 0)] * (array.ndim - 2))


def _stack(
    labels: Sequence[NDArray[np.uint8] | NDArray[np.float32] | int], height: int, width: int
) -> NDArray[np.generic]:
    if isinstance(labels[0], int):
        return np.array(labels, dtype=np.int64)
    if labels[0].dtype.kind == "f":
        return _stack_boxes([np.asarray(rows, dtype=np.float32) for rows in labels])
    return np.stack([_padded(np.asarray(label), height, width) for label in labels])


def _stack_boxes(boxes: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return boxes of N images, ``(N, M, 6)``; rows of class -1 fill up."""
    most = max([1, *(len(rows) for rows in boxes)])
    stacked = np.zeros((len(boxes), most, 6), dtype=np.float32)
    stacked[..., 0] = -1
    for place, rows in enumerate(boxes):
        stacked[place, : len(rows)] = rows
    return stacked
