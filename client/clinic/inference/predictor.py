"""A model at work: from images as they were read to a prediction in their own voxels.

Preprocessing, windows, precision and batches are those that the model was evaluated with.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.client.clinic.inference.inputs import require_channels
from wardround.client.clinic.inference.outside import reasons_outside
from wardround.client.clinic.inference.prediction import (
    Classified,
    Detected,
    Estimated,
    FoundBox,
    Prediction,
    Segmented,
)
from wardround.client.clinic.inference.views import View, views_of
from wardround.client.data.batch import Batch
from wardround.client.data.boxes import boxes_in_own_grid
from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.manifest.covariates import (
    encode_covariates,
    lacking_covariates,
    listed_words,
    missing_parts,
)
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.preprocessing.own_grid import (
    OwnGrid,
    labels_in_own_grid,
    prepare_alike,
)
from wardround.client.data.reading.image import Image
from wardround.client.site.device import arranged_for, choose_arithmetic, device_for
from wardround.client.tasks.detection import DECIDED, MOST_BOXES
from wardround.client.tasks.fused_boxes import fuse_boxes
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.segmentation import most_likely_classes
from wardround.client.tasks.task import AnswersNumbers, PredictsInParts
from wardround.client.tasks.words import word_among
from wardround.client.training.evaluation import (
    answer_of,
    forward_of,
    outputs_of,
    predict,
)
from wardround.common.errors import DataError, InputError, ModelError
from wardround.common.models.contract import Contract
from wardround.common.models.model_folder import ModelFolder, open_model_folder
from wardround.common.study.sections.data import Covariate, DataSection
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_CPU = torch.device("cpu")
_SOMEWHERE = Location(Path())  # of an image that was read already


@dataclass(frozen=True, slots=True)
class Prepared:
    """One examination as the network sees it.

    Attributes:
        image: ``(C, *spatial)`` float32; None for a table study.
        covariates: ``(F,)`` float32; None where the study has none.
        grid: The way back to its own voxels; None for a table study.
        missing: The optional covariates and channels that it lacks.
    """

    image: Tensor | None
    covariates: Tensor | None
    grid: OwnGrid | None
    missing: tuple[str, ...] = ()


def load_predictor(
    folder: "str | PathLike[str] | Sequence[str | PathLike[str]]",
    device: str = "auto",
    *,
    key: "Ed25519PublicKey | None" = None,
    views: bool = False,
    uncertainty: bool = False,
) -> "Predictor":
    """Return a model that predicts, or the mean of several.

    Args:
        folder: A model folder, or several of the same data contract (an ensemble).
        device: "auto", "cpu", "cuda" or "cuda:1".
        key: An Ed25519 public key that must have signed each folder; None takes any.
        views: Whether to average over views of each image, as training augmented them.
        uncertainty: Whether to say how certain a segmentation is.

    Raises:
        ModelError: A folder is no model folder, was changed, or does not fit the others.
        InputError: There is no such device, or training showed the model no other views.
    """
    given = [folder] if isinstance(folder, str | PathLike) else list(folder)
    models = [open_model_folder(Path(one), key) for one in given]
    if not models:
        msg = "no model folder was given."
        raise ModelError(msg)
    _check_alike(models)
    study = models[0].study
    chosen = device_for(device, study)
    choose_arithmetic(chosen, study)
    networks = tuple(
        arranged_for(model.network().to(chosen), chosen, model.study.training.precision)
        for model in models
    )
    return Predictor(tuple(models), networks, chosen, views_of(study, views), uncertainty)


def _check_alike(models: Sequence[ModelFolder]) -> None:
    first = models[0].study
    for model in models[1:]:
        if model.study.data != first.data or model.study.study.task != first.study.task:
            msg = (
                f"the model {model.contract.name!r} was made for other images or classes than "
                f"{models[0].contract.name!r}: an ensemble needs one [data] section."
            )
            raise ModelError(msg)


class Predictor:
    """One model, or several that vote, on a device."""

    def __init__(
        self,
        models: tuple[ModelFolder, ...],
        networks: tuple[nn.Module, ...],
        device: torch.device,
        views: tuple[View, ...],
        uncertainty: bool,
    ) -> None:
        self.models = models
        self.device = device
        self._networks = networks
        self._views = views
        self._uncertainty = uncertainty
        if self.study.data.combat is not None:
            msg = (
                "the model's study takes what is a site's out of its covariates by ComBat, and one "
                "examination alone says no site: it can only be evaluated at a site that ComBat "
                "was fitted with."
            )
            raise ModelError(msg)
        if self.study.data.covariate_scaling == "site" and self.study.data.covariates:
            msg = (
                "the model's study scales covariates by each site's own values, which are not in "
                "the model: it can only be evaluated at a site."
            )
            raise ModelError(msg)

    @property
    def study(self) -> Study:
        """The study of the first model: its ``data`` is that of all."""
        return self.models[0].study

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """A network a model, in evaluation mode, on the device."""
        return self._networks

    @property
    def contract(self) -> Contract:
        """The contract of the first model."""
        return self.models[0].contract

    @property
    def digest(self) -> str:
        """The digest of the model folder; of an ensemble those of all, joined by ``+``."""
        return "+".join(model.digest for model in self.models)

    @property
    def operating_point(self) -> float | None:
        """From which probability on a class is reported; None where the most probable one is."""
        study = self.study
        if study.task.boxes:
            return DECIDED
        picks = not study.task.classifies or (not study.data.multi_label and study.class_count > 2)
        return None if picks else self.contract.threshold

    @property
    def batch_size(self) -> int:
        """How many examinations are predicted at once: as many as an evaluation takes."""
        study = self.study
        one_size = study.data.size is not None or study.data.kind == "table"
        return study.training.batch_size if one_size and not study.training.patch_size else 1

    def outside(
        self, images: "Image | Sequence[Image]", modality: str | None = None
    ) -> tuple[str, ...]:
        """Return why an examination is not one that every model was made for; empty if it is.

        Args:
            images: As they were read, one a channel.
            modality: As its DICOM file says, e.g. "CT".
        """
        channels = [images] if isinstance(images, Image) else list(images)
        found = (
            reason
            for model in self.models
            for reason in reasons_outside(channels, model.contract, self.study.data, modality)
        )
        return tuple(dict.fromkeys(found))

    def prepare(
        self, images: "Image | Sequence[Image]" = (), covariates: Sequence[str] = ()
    ) -> Prepared:
        """Return an examination as the network sees it.

        Args:
            images: As they were read, one a channel of the study, in its order; an absent one, see
                :func:`fill_absent`, for an optional one that it lacks.
            covariates: The texts of the study's covariates, in its order; "" where one is missing.

        Raises:
            DataError: It is not what the study needs.
        """
        channels = [images] if isinstance(images, Image) else list(images)
        return self.prepare_several([(channels, covariates)])[0]

    def prepare_several(
        self, some: Sequence[tuple[Sequence[Image], Sequence[str]]]
    ) -> list[Prepared]:
        """Return examinations as the network sees them: of each its images and its covariates.

        Raises:
            DataError: One is not what the study needs.
        """
        data = self.study.data
        rows = [self._covariates(images, covariates) for images, covariates in some]
        if data.kind == "table":
            return [Prepared(None, row, None, missing) for row, missing in rows]
        for images, _ in some:
            _check_channels(images, data)
        prepared = prepare_alike([images for images, _ in some], data)
        return [
            Prepared(image, row, grid, missing)
            for (image, grid), (row, missing) in zip(prepared, rows, strict=True)
        ]

    def _covariates(
        self, images: Sequence[Image], covariates: Sequence[str]
    ) -> tuple[Tensor | None, tuple[str, ...]]:
        """Return the columns of an examination, and which optional parts it lacks."""
        data = self.study.data
        known = data.covariates
        if len(covariates) != len(known):
            names = ", ".join(covariate.name for covariate in known)
            msg = f"the model needs the values of {names}: give them in a manifest."
            raise DataError(msg)
        texts = tuple(map(_as_listed, known, covariates))
        if lacking := lacking_covariates(texts, data):
            msg = (
                f"it has no value of {', '.join(lacking)} that the model knows, and the model was "
                "not trained to do without: fill it in."
            )
            raise DataError(msg)
        scales = [(covariate.mean, covariate.scale) for covariate in known]
        held = tuple(None if image.is_absent else _SOMEWHERE for image in images)
        only = Examination(0, "", held, covariates=texts)
        encoded = encode_covariates([only], data, scales)
        return None if encoded is None else encoded[0], missing_parts(only, data)

    def predict(
        self,
        images: "Image | Sequence[Image]" = (),
        covariates: Sequence[str] = (),
        modality: str | None = None,
    ) -> Prediction:
        """Return what the model says of one examination that it was made for.

        Args:
            images: As they were read, one a channel of the study, in its order.
            covariates: The texts of the study's covariates, in its order.
            modality: As its DICOM file says.

        Raises:
            DataError: It is not one that the model was made for; says why.
        """
        given = not isinstance(images, Image) and not images
        if reasons := () if given else self.outside(images, modality):
            raise DataError(refusal(reasons))
        return self.predict_prepared([self.prepare(images, covariates)])[0]

    def predict_prepared(self, some: Sequence[Prepared]) -> list[Prediction]:
        """Return what the model says of examinations of one size, in one batch.

        Raises:
            ModelError: An output is not a number.
        """
        task = self.study.task
        if task.restores:
            msg = (
                "this model was pretrained without labels, and predicts "
                "nothing: start a study from it ('wardround model pretrain')."
            )
            raise InputError(msg)
        if not (task.classifies or task.dense or task.boxes or task.outcome):
            msg = f"wardround predict does not know the task {self.study.study.task!r} yet."
            raise InputError(msg)
        with torch.inference_mode():  # the networks are in evaluation mode since they were loaded
            batch = _batch_of(some).to(self.device)
            if task.dense:
                return [self._segmented(one, _case(batch, at)) for at, one in enumerate(some)]
            if task.boxes:
                return self._detected(some, batch)
            return self._estimated(batch) if task.outcome else self._classified(batch)

    def _estimated(self, batch: Batch) -> list[Prediction]:
        members: list[Tensor] = []
        names: tuple[str, ...] = ()
        for network, model in zip(self._networks, self.models, strict=True):
            task = task_of(model.study)
            if not isinstance(task, AnswersNumbers):
                msg = f"the task {model.study.study.task!r} answers no numbers"
                raise TypeError(msg)
            for view in self._views:
                outputs = predict(network, view.of(batch), model.study).double().cpu()
                names, values = task.answers(outputs, model.study)
                members.append(values)
        together = torch.stack(members)
        means = together.mean(0)
        _check_numbers(means)
        spreads = together.std(0, correction=0).tolist() if len(members) > 1 else None
        return [
            Estimated(
                names,
                tuple(row),
                self.study.outcome.unit,
                None if spreads is None else tuple(spreads[at]),
            )
            for at, row in enumerate(means.tolist())
        ]

    def _classified(self, batch: Batch) -> list[Prediction]:
        members: list[Tensor] = []
        for network, model in zip(self._networks, self.models, strict=True):
            for view in self._views:
                logits = predict(network, view.of(batch), model.study).double().cpu()
                logits = logits / (model.contract.temperature or 1.0)
                if self.study.data.multi_label:
                    members.append(torch.sigmoid(logits))
                else:
                    members.append(torch.softmax(logits, dim=1))
        together = torch.stack(members)
        means = together.mean(0)
        _check_numbers(means)
        spreads = together.std(0, correction=0).tolist() if len(members) > 1 else None
        entropies = _entropies(means, self.study.data.multi_label).tolist()
        classes, threshold = self.study.data.classes, self.operating_point
        calibrated = all(model.contract.temperature is not None for model in self.models)
        return [
            Classified(
                classes,
                tuple(row),
                self._found(row),
                threshold,
                calibrated,
                entropies[at],
                None if spreads is None else tuple(spreads[at]),
            )
            for at, row in enumerate(means.tolist())
        ]

    def _detected(self, some: Sequence[Prepared], batch: Batch) -> list[Prediction]:
        members: list[Tensor] = []  # (B, P, 2 + 2 dims) each
        for network, model in zip(self._networks, self.models, strict=True):
            for view in self._views:
                outputs = outputs_of(network, view.of(batch), model.study)
                _check_numbers(outputs)
                turned = view.anchors_back(outputs, model.study.data.size or ())
                members.append(answer_of(turned, model.study).double().cpu())
        together = [fuse_boxes(rows, MOST_BOXES).numpy() for rows in zip(*members, strict=True)]
        return [self._framed(one, rows) for one, rows in zip(some, together, strict=True)]

    def _framed(self, one: Prepared, rows: NDArray[np.float64]) -> Detected:
        if one.grid is None:
            msg = "a detection needs an image"
            raise TypeError(msg)
        classes, dimensions = self.study.data.classes, self.study.data.dimensions
        own = boxes_in_own_grid(rows[rows[:, 1] >= 0], one.grid)
        # A picture's axes are (y, x), and everybody writes x first.
        order = [1, 0] if dimensions == 2 else [0, 1, 2]
        found = tuple(
            FoundBox(
                classes[int(row[1])],
                float(row[0]),
                tuple(row[2 : 2 + dimensions][order].tolist()),
                tuple(row[2 + dimensions :][order].tolist()),
            )
            for row in own
        )
        told = [box.name for box in found if box.score >= DECIDED]
        return Detected(classes, found, DECIDED, tuple(map(told.count, classes)), one.grid.affine)

    def _found(self, probabilities: Sequence[float]) -> tuple[str, ...]:
        classes, threshold = self.study.data.classes, self.operating_point
        if threshold is None:
            return (classes[max(range(len(classes)), key=probabilities.__getitem__)],)
        if self.study.data.multi_label:
            pairs = zip(classes, probabilities, strict=True)
            return tuple(name for name, probability in pairs if probability >= threshold)
        return (classes[int(probabilities[1] >= threshold)],)

    def _segmented(self, one: Prepared, batch: Batch) -> Prediction:
        if one.grid is None:
            msg = "a segmentation needs an image"
            raise TypeError(msg)
        try:
            parts = self._parts(batch)
            labels, entropy = self._labels(parts, one.grid)
        except torch.OutOfMemoryError:
            if self.device.type == "cpu":
                raise
            torch.cuda.empty_cache()
            # As an evaluation does: the sums are kept in this machine's memory.
            labels, entropy = self._labels(self._parts(batch.to(_CPU)), one.grid)
        voxels = np.bincount(labels.ravel(), minlength=self.study.class_count)
        millilitres = one.grid.voxel_ml
        return Segmented(
            self.study.data.classes,
            labels,
            one.grid.affine,
            one.grid.spacing,
            tuple(voxels.tolist()),
            None if millilitres is None else tuple((voxels * millilitres).tolist()),
            entropy,
        )

    def _labels(
        self, parts: Iterator[tuple[tuple[slice, ...], Tensor]], grid: OwnGrid
    ) -> tuple[Any, float | None]:
        watch = _Watch(self._uncertainty)
        labels = labels_in_own_grid(
            watch.watched(parts), grid, most_likely_classes, self.study.class_count
        )
        return labels, watch.entropy

    def _parts(self, batch: Batch) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Yield logits of one examination in parts, or the logarithms of mean probabilities."""
        if len(self._networks) == 1 and len(self._views) == 1:
            yield from _logits_in_parts(self._networks[0], batch, self.models[0].study, self.device)
            return
        total: Tensor | None = None
        for network, model in zip(self._networks, self.models, strict=True):
            for view in self._views:
                seen = _probabilities(network, view.of(batch), model.study, self.device)
                turned = view.back(seen)
                total = turned if total is None else total.add_(turned)
        if total is not None:
            yield (slice(None),) * total.ndim, total.log_()


def _as_listed(covariate: Covariate, text: str) -> str:
    """Return the word of the study that a text stands for, as a manifest of a site is read.

    Raises:
        DataError: A number is none.
    """
    if covariate.values:
        return word_among(text, listed_words(covariate)) or text
    try:
        parse_number(text)
    except ValueError:
        msg = f"its value of {covariate.name} is not a number: write one, with a decimal point."
        raise DataError(msg) from None
    return text


def _check_channels(images: Sequence[Image], data: DataSection) -> None:
    """Check that there is an image a channel, but for those that an examination may lack.

    Raises:
        DataError: There is not.
    """
    if len(images) != len(data.channels):
        msg = (
            f"{len(images)} images were given for the channels "
            f"{', '.join(data.channels)}: give one a channel."
        )
        raise DataError(msg)
    require_channels([not image.is_absent for image in images], data)


class _Watch:
    """Looks at logits on their way: are they numbers, and how certain are they?"""

    def __init__(self, measures: bool) -> None:
        self._measures = measures
        self._sum, self._count = 0.0, 0

    @property
    def entropy(self) -> float | None:
        return self._sum / self._count if self._count else None

    def watched(
        self, parts: Iterator[tuple[tuple[slice, ...], Tensor]]
    ) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        for place, part in parts:
            # A sum that is a number has no NaN in it: one pass, nothing as large as the part.
            _check_numbers(part.sum())
            if self._measures:
                found = most_likely_classes(part) > 0
                logs = torch.log_softmax(part, dim=1)
                entropy = -(logs.exp() * logs).sum(1) / np.log(part.shape[1])
                self._sum += float(entropy[found].double().sum())
                self._count += int(found.sum())
            yield place, part


def refusal(reasons: Sequence[str]) -> str:
    """Return the sentence for an examination that a model was not made for."""
    return (
        f"the model was not made for this image: {'; '.join(reasons)}. "
        "Give an image as the model was trained on."
    )


def _logits_in_parts(
    network: nn.Module, batch: Batch, study: Study, device: torch.device
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    task, forward = task_of(study), forward_of(network, study, device)
    parts = None
    if isinstance(task, PredictsInParts):
        parts = task.predict_in_parts(forward, batch, study)
    if parts is None:
        logits = task.predict(forward, batch, study)
        parts = iter([((slice(None),) * logits.ndim, logits)])
    yield from parts


def _probabilities(network: nn.Module, batch: Batch, study: Study, device: torch.device) -> Tensor:
    """Return ``(1, K, *spatial)`` of one examination."""
    if batch.images is None:
        msg = "a segmentation needs an image"
        raise TypeError(msg)
    shape = (1, study.class_count, *batch.images.shape[2:])
    total = batch.images.new_empty(shape)
    for place, part in _logits_in_parts(network, batch, study, device):
        total[place] = torch.softmax(part, dim=1)
    return total


def _batch_of(some: Sequence[Prepared]) -> Batch:
    images = [one.image for one in some if one.image is not None]
    covariates = [one.covariates for one in some if one.covariates is not None]
    return Batch(
        torch.stack(images) if images else None,
        torch.stack(covariates) if covariates else None,
        torch.zeros(len(some), dtype=torch.int64),
    )


def _case(batch: Batch, at: int) -> Batch:
    if len(batch) == 1:
        return batch
    images, covariates = batch.images, batch.covariates
    some = slice(at, at + 1)
    return Batch(
        None if images is None else images[some],
        None if covariates is None else covariates[some],
        batch.targets[some],
    )


def _entropies(probabilities: Tensor, multi_label: bool) -> Tensor:
    """Return ``(B,)``: 0 where one class is certain, 1 where all are as likely."""
    if multi_label:
        both = torch.stack([probabilities, 1 - probabilities])
        ratio: Tensor = torch.special.entr(both).sum(0).mean(1) / math.log(2)
        return ratio
    entropy: Tensor = torch.special.entr(probabilities).sum(1) / math.log(probabilities.shape[1])
    return entropy


def _check_numbers(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        msg = (
            "the model's output is not a number everywhere: its weights are damaged, or the "
            "image's values are far from those it was trained on."
        )
        raise ModelError(msg)
