"""The parent of a study that goes on: that its model is the one, and where its numbers go.

A network of more classes than the parent's has more outputs. What the parent knows of the others is
kept: each tensor takes the parent's numbers in its first rows, and what is added stays as drawn.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.models.start import Start, WeightsOrigin
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import SavedModel
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.models.model_folder import ModelFolder

_SHOWN = 12  # digits that a person compares
_KEPT = ("method", "replay", "weight", "temperature", "margin", "margins")
_WAVE = re.compile(r" wave \d+$")  # at the end of a study's name


def require_parent(study: Study, saved: SavedModel) -> None:
    """Check that a file of weights holds the model that a study says it goes on from.

    Raises:
        ModelError: It is of another study, or its numbers are others.
    """
    held = study.continual
    if held is None or held.parent is None or held.model is None:
        return
    origin = WeightsOrigin.of(saved.metadata)
    if origin.study_digest != held.parent:
        made_by = origin.study_digest[:_SHOWN] or "a study that it does not name"
        msg = (
            f"the weights were made by {made_by}, and continual.parent names "
            f"{held.parent[:_SHOWN]}: have 'wardround study continue' write the study again."
        )
        raise ModelError(msg)
    if (found := digest(saved.parameters)) != held.model:
        msg = (
            f"the parent's model that came has the digest {found[:_SHOWN]}..., and continual.model "
            f"says {held.model[:_SHOWN]}...: it is another one. Nothing starts from it."
        )
        raise ModelError(msg)


def start_from_parent(
    state: Mapping[str, Tensor], saved: SavedModel, start: Start, study: Study
) -> Start:
    """Give what a network has more than its parent the parent's part; return what was taken.

    Args:
        state: All numbers of the network, which are changed in place.
        start: What fits as it is, which they hold already.

    Raises:
        ModelError: The model is not the parent's, or fits in parts that are no classes.
    """
    require_parent(study, saved)
    added = _added_classes(study)
    widened = []
    for name, tensor in state.items():
        if name in start.taken:
            continue
        old = saved.parameters.get(name)
        if old is None or not _is_wider(tensor, old, added):
            msg = (
                f"the parent's model does not fit {name}: a study goes on with the network, the "
                "channels and the classes of its parent, and may add classes at their end "
                "(continual.classes says how many the parent knows). For anything else start from "
                "its weights alone: 'wardround model pretrain'."
            )
            raise ModelError(msg)
        _widen(tensor, old)
        widened.append(name)
    if not widened:
        return start
    layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in widened))
    left = tuple(layer for layer in start.left if layer not in layers)
    taken = {**start.taken, **{name: name for name in widened}}
    return replace(start, taken=taken, layers=(*start.layers, *layers), left=left, share=1.0)


def _added_classes(study: Study) -> int:
    held = study.continual
    known = None if held is None else held.classes
    return 0 if known is None else study.class_count - known


def _is_wider(tensor: Tensor, old: Tensor, added: int) -> bool:
    if not added or tensor.ndim != old.ndim:
        return False
    more = {new - before for new, before in zip(tensor.shape, old.shape, strict=True)}
    return more <= {0, added}


def _widen(tensor: Tensor, old: Tensor) -> None:
    """Put the parent's numbers first; no old output listens to what was added."""
    differs = [axis for axis in range(old.ndim) if tensor.shape[axis] != old.shape[axis]]
    if len(differs) > 1:  # outputs first, then inputs, as layers within a head have them
        tensor[: old.shape[0], old.shape[1] :] = 0
    tensor[tuple(slice(0, size) for size in old.shape)] = old


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a study that goes on asks for beside what its parent asked for.

    Attributes:
        changes: Further keys, dotted.
        wave: Of the new data; the one after the parent's where absent.
        added_classes: Names that come after the parent's classes.
    """

    changes: Mapping[str, object] = field(default_factory=dict)
    wave: int | None = None
    added_classes: tuple[str, ...] = ()


def continued(model: "ModelFolder", asked: Continuation, weights_sha256: str) -> Study:
    """Return the study that goes on from a finished model.

    Args:
        weights_sha256: Of the file that :func:`wardround.common.models.pretrained.offer_weights`
            has put away for the model.

    Raises:
        ModelError: No study can go on from this model; says why.
        StudyError: The changes do not fit.
    """
    parent = model.study
    _require_continuable(model)
    _require_promise(parent, asked)
    wave = asked.wave
    if wave is None:
        wave = 1 + (1 if parent.continual is None else parent.continual.wave)
    changes: dict[str, object] = {
        "study.name": f"{_WAVE.sub('', parent.name)} wave {wave}",
        "study.repeats": None,  # the parent may repeat a run without a site; this one trains anew
        "model.weights_sha256": weights_sha256,
        "continual.wave": wave,
        "continual.parent": parent.digest,
        "continual.model": model.contract.parameters,
        "continual.classes": None,
        **_kept(parent),
    }
    if asked.added_classes:
        changes["data.classes"] = [*parent.data.classes, *asked.added_classes]
        changes["continual.classes"] = parent.class_count
    child = with_changes(parent, {**changes, **asked.changes}, "the study that goes on")
    _require_same(parent, child)
    return child


def _kept(parent: Study) -> dict[str, object]:
    """Return what a study goes on with of how its parent went on."""
    held = parent.continual
    if held is None:
        return {}
    said = held.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {f"continual.{key}": said[key] for key in _KEPT if key in said}


def _require_continuable(model: "ModelFolder") -> None:
    study = model.study
    fault = ""
    if not model.contract.complete or plan_of(study).personalised:
        fault = (
            "each site keeps a part of it, so there is no one model that all would start from: "
            "train with a strategy that shares all, e.g. fedavg"
        )
    elif study.model.adapted:
        fault = (
            "its study trains a part of the network alone (model.adapter_rank or model.frozen): "
            "start from its weights with 'wardround model pretrain'"
        )
    if fault:
        msg = f"no study can go on from the model {model.contract.name}: {fault}."
        raise ModelError(msg)


def _require_promise(parent: Study, asked: Continuation) -> None:
    """Refuse to train without privacy on patients whom the parent promised it.

    Raises:
        ModelError: The study would.
    """
    mode = asked.changes.get("privacy.mode", parent.privacy.mode)
    if parent.privacy.mode == "patient" and mode != "patient":
        msg = (
            f"{parent.name} promised its patients privacy, and this study would train on them with "
            f"privacy.mode = {mode!r}, which breaks the promise: leave privacy.mode as it is."
        )
        raise ModelError(msg)


def _require_same(parent: Study, child: Study) -> None:
    """Refuse another task, network or labels: a study that goes on is about the same answer.

    Raises:
        ModelError: They differ.
    """
    known = parent.data.classes
    faults = []
    if child.study.task != parent.study.task:
        faults.append(f"the task is {child.study.task}, the parent's {parent.study.task}")
    if child.model.network != parent.model.network:
        faults.append(f"the network is {child.model.network}, the parent's {parent.model.network}")
    if child.data.classes[: len(known)] != known:
        faults.append(
            f"data.classes does not begin with the parent's, {', '.join(known)}, in their order"
        )
    if faults:
        msg = (
            f"this study does not go on from {parent.name}: {'; '.join(faults)}. Leave them as "
            "they are; a new class goes to the end, with --add-class."
        )
        raise ModelError(msg)
