"""One model, or several that vote: their networks on a device, and the views that they look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wardround.client.clinic.inference.views import View
from wardround.client.tasks.detection import DECIDED
from wardround.common.errors import ModelError
from wardround.common.models.model_folder import ModelFolder
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """One model, or several of one data contract, on a device.

    Attributes:
        models: At least one.
        networks: A network a model, in evaluation mode, on the device.
        views: What each network looks at, the image itself first.
    """

    models: tuple[ModelFolder, ...]
    networks: tuple[nn.Module, ...]
    device: torch.device
    views: tuple[View, ...]

    @property
    def study(self) -> Study:
        """The study of the first model: its ``data`` is that of all."""
        return self.models[0].study

    @property
    def operating_point(self) -> float | None:
        """From which probability on a class is reported; None where the most probable one is."""
        study = self.study
        if study.task.boxes:
            return DECIDED
        picks = not study.task.classifies or (not study.data.multi_label and study.class_count > 2)
        return None if picks else self.models[0].contract.threshold

    def looks(self) -> Iterator[tuple[nn.Module, ModelFolder, View]]:
        """Yield every network with its model, once a view."""
        for network, model in zip(self.networks, self.models, strict=True):
            for view in self.views:
                yield network, model, view


def check_alike(models: Sequence[ModelFolder]) -> None:
    """Check that models can vote: they were made for the same images and classes.

    Raises:
        ModelError: They were not.
    """
    first = models[0].study
    for model in models[1:]:
        if model.study.data != first.data or model.study.study.task != first.study.task:
            msg = (
                f"the model {model.contract.name!r} was made for other images or classes than "
                f"{models[0].contract.name!r}: an ensemble needs one [data] section."
            )
            raise ModelError(msg)


def check_predicts_anywhere(study: Study) -> None:
    """Check that nothing of a site is needed to prepare an examination.

    Raises:
        ModelError: ComBat or the scales of covariates are a site's own.
    """
    if study.data.combat is not None:
        msg = (
            "the model's study takes what is a site's out of its covariates by ComBat, and one "
            "examination alone says no site: it can only be evaluated at a site that ComBat "
            "was fitted with."
        )
        raise ModelError(msg)
    if study.data.covariate_scaling == "site" and study.data.covariates:
        msg = (
            "the model's study scales covariates by each site's own values, which are not in "
            "the model: it can only be evaluated at a site."
        )
        raise ModelError(msg)


def check_numbers(values: Tensor) -> None:
    """Check that what a network answered, of any shape, is a number everywhere.

    Raises:
        ModelError: It is not.
    """
    if not bool(values.isfinite().all()):
        msg = (
            "the model's output is not a number everywhere: its weights are damaged, or the "
            "image's values are far from those it was trained on."
        )
        raise ModelError(msg)
