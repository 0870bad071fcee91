"""The methods that explain a prediction, by name."""

from collections.abc import Mapping

from wardround.client.clinic.explanations.attribution import Method
from wardround.client.clinic.explanations.grad_cam import grad_cam, hires_cam
from wardround.client.clinic.explanations.integrated_gradients import (
    integrated_gradients,
    rough_gradients,
)
from wardround.client.clinic.explanations.occlusion import occlusion
from wardround.client.clinic.explanations.uncertainty import UNCERTAINTIES
from wardround.common.errors import InputError, known_names
from wardround.common.study.study import Study

METHODS: Mapping[str, Method] = {
    "grad-cam": grad_cam,
    "hires-cam": hires_cam,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}
ROUGH: Mapping[str, Method] = {**METHODS, "integrated-gradients": rough_gradients}
"""As they are made of networks with random weights, whose maps only their ranks are taken of."""
_OF_TABLES = ("integrated-gradients",)
_UNPOOLED = ("small-cnn",)  # each place has weights of its own: their mean says little
_PLACELESS = ("vit", "mlp")  # networks of whose layers none is a grid of places at the end


def methods_of(study: Study) -> tuple[str, ...]:
    """Return the names of the methods that fit a study, the usual one first.

    Raises:
        InputError: The study's task has no explanations.
    """
    if study.task.dense:
        return tuple(UNCERTAINTIES)
    if not study.task.classifies:
        msg = (
            f"explanations are of classifications and segmentations, and this study is a "
            f"{study.study.task}: explain a run of another study."
        )
        raise InputError(msg)
    if study.data.kind == "table":
        return _OF_TABLES
    # A network without convolutions has no Grad-CAM: then its gradients come first.
    if study.model.network in _PLACELESS:
        return ("integrated-gradients", "occlusion")
    if study.model.network in _UNPOOLED:
        return ("hires-cam", *(name for name in METHODS if name != "hires-cam"))
    return tuple(METHODS)


def choose_method(name: str | None, study: Study) -> str:
    """Return a method that fits a study; the usual one for None.

    Raises:
        InputError: It is unknown, or does not fit the study; says which do.
    """
    fitting = methods_of(study)
    if name is None:
        return fitting[0]
    if name not in METHODS and name not in UNCERTAINTIES:
        raise InputError(known_names("method", name, (*METHODS, *UNCERTAINTIES)))
    if name not in fitting:
        msg = f"{name} does not fit {_what(study)}: use {' or '.join(fitting)}."
        raise InputError(msg)
    return name


def _what(study: Study) -> str:
    if study.task.dense:
        return "a segmentation, which has a map of its own and of how sure it is"
    if study.data.kind == "table":
        return "a study of a table, which has no map"
    if study.model.network in _PLACELESS:
        return f"the network {study.model.network}, whose layers have no places"
    return "a classification"
