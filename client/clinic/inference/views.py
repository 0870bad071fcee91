"""Views of a batch for test-time augmentation: only such as training has shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wardround.client.data.augmentation.applied import apply_changes
from wardround.client.data.augmentation.drawn import draw_changes
from wardround.client.data.augmentation.presets import PRESETS
from wardround.client.data.batch import Batch
from wardround.client.tasks.fused_boxes import mirrored_back
from wardround.common.errors import InputError
from wardround.common.models.networks.mirrors import mirrored_axes
from wardround.common.study.study import Study

_DRAWN_VIEWS = 7  # beside the image itself
_SEED = 20_240_229  # any: the same views for every image, in every run


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at a batch.

    Attributes:
        flips: Spatial axes that are mirrored, counted from the last: -1, -2, ...
        seed: Of a drawn augmentation; None for none.
        preset: The study's augmentation.
    """

    flips: tuple[int, ...] = ()
    seed: int | None = None
    preset: str = "none"

    def of(self, batch: Batch) -> Batch:
        """Return the batch as this view sees it; images ``(B, C, *spatial)``."""
        if batch.images is None or (not self.flips and self.seed is None):
            return batch
        images = batch.images.flip(self.flips) if self.flips else batch.images
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed)
            preset = PRESETS[self.preset]
            drawn = draw_changes(preset, 1, images.ndim - 2, generator)
            images = torch.cat([apply_changes(one[None], None, drawn)[0] for one in images])
        return Batch(images, batch.covariates, batch.targets)

    def back(self, outputs: Tensor) -> Tensor:
        """Return outputs ``(B, K, *spatial)`` of the view turned back."""
        return outputs.flip(self.flips) if self.flips else outputs

    def anchors_back(self, outputs: Tensor, size: Sequence[int]) -> Tensor:
        """Return what a detector said of the view's anchors, of the image ``(*spatial)`` itself."""
        return mirrored_back(outputs, self.flips, size)


def views_of(study: Study, wanted: bool) -> tuple[View, ...]:
    """Return the views that predictions are averaged over, the image itself first.

    A classification takes seven draws of the study's own augmentation. A segmentation and a
    detection take mirrored images, whose masks and boxes can be turned back exactly; their study
    may ask for them already.

    Raises:
        InputError: They are wanted, and training has shown none.
    """
    plain = View()
    if not wanted:
        return (plain,)
    name = study.data.augmentation
    preset = PRESETS[name]
    turns_back = study.task.dense or study.task.boxes
    if turns_back and (preset.flips or preset.mirrors):
        if study.evaluation.tta == "mirror":  # each network mirrors what it sees by itself
            return (plain,)
        return tuple(replace(plain, flips=axes) for axes in mirrored_axes(study.data.dimensions))
    if study.data.kind == "table" or turns_back or name == "none":
        needed = "mirrored images" if turns_back else "images that were changed at random"
        msg = (
            f"--tta averages over views that training has shown, and this model's study, with "
            f"data.augmentation = {name!r}, showed it no {needed}: leave --tta out."
        )
        raise InputError(msg)
    return (plain, *(View(seed=_SEED + number, preset=name) for number in range(_DRAWN_VIEWS)))
