"""A model at work: from images as they were read to a prediction in their own voxels.

Preprocessing, windows, precision and batches are those that the model was evaluated with.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from wardround.client.clinic.inference.answers import classified, detected, estimated
from wardround.client.clinic.inference.ensemble import (
    Ensemble,
    check_alike,
    check_predicts_anywhere,
)
from wardround.client.clinic.inference.outside import reasons_outside
from wardround.client.clinic.inference.prediction import Prediction
from wardround.client.clinic.inference.preparing import (
    Prepared,
    batch_of,
    case_of,
    prepare_examinations,
)
from wardround.client.clinic.inference.segmenting import segmented
from wardround.client.clinic.inference.views import views_of
from wardround.client.data.reading.image import Image
from wardround.client.site.device import arranged_for, choose_arithmetic, device_for
from wardround.common.errors import DataError, InputError, ModelError
from wardround.common.models.contract import Contract
from wardround.common.models.model_folder import ModelFolder, open_model_folder
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


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
    check_alike(models)
    study = models[0].study
    chosen = device_for(device, study)
    choose_arithmetic(chosen, study)
    networks = tuple(
        arranged_for(model.network().to(chosen), chosen, model.study.training.precision)
        for model in models
    )
    ensemble = Ensemble(tuple(models), networks, chosen, views_of(study, views))
    return Predictor(ensemble, uncertainty)


class Predictor:
    """One model, or several that vote, on a device."""

    def __init__(self, ensemble: Ensemble, uncertainty: bool = False) -> None:
        """Check that the models can predict away from their sites.

        Args:
            uncertainty: Whether to say how certain a segmentation is.

        Raises:
            ModelError: They cannot.
        """
        check_predicts_anywhere(ensemble.study)
        self._ensemble = ensemble
        self._uncertainty = uncertainty

    @property
    def models(self) -> tuple[ModelFolder, ...]:
        """The model folders, at least one."""
        return self._ensemble.models

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._ensemble.device

    @property
    def study(self) -> Study:
        """The study of the first model: its ``data`` is that of all."""
        return self._ensemble.study

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """A network a model, in evaluation mode, on the device."""
        return self._ensemble.networks

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
        return self._ensemble.operating_point

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
        return prepare_examinations(some, self.study.data)

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
            batch = batch_of(some).to(self.device)
            if task.dense:
                return [
                    segmented(self._ensemble, one, case_of(batch, at), self._uncertainty)
                    for at, one in enumerate(some)
                ]
            if task.boxes:
                return detected(self._ensemble, some, batch)
            answer = estimated if task.outcome else classified
            return answer(self._ensemble, batch)


def refusal(reasons: Sequence[str]) -> str:
    """Return the sentence for an examination that a model was not made for."""
    return (
        f"the model was not made for this image: {'; '.join(reasons)}. "
        "Give an image as the model was trained on."
    )
