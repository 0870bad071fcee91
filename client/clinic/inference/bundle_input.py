"""What an exported bundle's ``inference.json`` reads images with, and makes boxes with."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wardround.client.data.manifest.examination import Location
from wardround.client.data.preprocessing.own_grid import prepare_images
from wardround.client.data.reading.readers import read_image
from wardround.client.tasks.detection import Detection
from wardround.client.tasks.windows import accepted_sizes, pad_around
from wardround.client.training.evaluation import without_tta
from wardround.common.errors import InputError
from wardround.common.models.contract import Contract
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


class PreparedImage:
    """A MONAI transform: from ``{"image": path}`` to ``{"image": (C, *spatial)}``."""

    def __init__(self, contract: str) -> None:
        """Read how images are prepared.

        Args:
            contract: Path of the bundle's ``configs/wardround.json``.
        """
        self._study = _study_of(contract)

    def __call__(self, item: Mapping[str, str]) -> dict[str, Tensor]:
        """Return the image as the network sees it, padded to what it accepts.

        Raises:
            InputError: The model takes more than one image, which a bundle's data list cannot say.
        """
        data = self._study.data
        if len(data.channels) != 1 or data.covariate_width:
            msg = "the bundle's data list names one image a case, and this model takes more."
            raise InputError(msg)
        image = read_image(Location(Path(item["image"])), data.dimensions, data.colour)
        prepared, _ = prepare_images([image], data)
        if not self._study.task.dense:
            return {"image": prepared}
        sizes = accepted_sizes(prepared.shape[1:], self._study)
        patch = self._study.training.patch_size
        if patch is not None:
            sizes = list(map(max, prepared.shape[1:], patch))
        padded, _ = pad_around(prepared[None], sizes)
        return {"image": padded[0]}


class BoxesFound:
    """From what a detector says of its anchors to the boxes that it found."""

    def __init__(self, contract: str) -> None:
        """Read what is looked for.

        Args:
            contract: Path of the bundle's ``configs/wardround.json``.
        """
        self._study = without_tta(_study_of(contract))  # a bundle shows each image once

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return ``(B, P, 2 + 2 dims)``: score, class, lo.., hi.. in voxels of the prepared image.

        Args:
            outputs: ``(B, A, K + 4 dims)``.
        """
        return Detection().answer(outputs, self._study)


def _study_of(contract: str) -> Study:
    found = Contract.model_validate_json(Path(contract).read_bytes())
    return parse_study(dict(found.study), "the bundle's study", planned=False)
