"""How unsure a segmentation is, and whether that is where it errs."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wardround.client.clinic.explanations.attribution import ExplanationError
from wardround.client.clinic.explanations.uncertainty import (
    UNCERTAINTIES,
    entropy,
    errors_found,
)
from wardround.client.data.batch import Batch
from wardround.common.study.study import Study

STUDY = Study.model_validate(
    {
        "study": {"name": "marks", "task": "segmentation"},
        "data": {"classes": ["background", "lesion"], "dimensions": 2, "size": [16, 16]},
        "model": {"network": "unet"},
    }
)


class Leftish(nn.Module):
    """Sure at the left, unsure at the right; drops values where it may."""

    def __init__(self, drops: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(drops)

    def forward(self, images: Tensor) -> Tensor:
        ramp = torch.linspace(4, 0, images.shape[-1]).expand(images.shape[0], 1, *images.shape[2:])
        return torch.cat([self.drop(ramp), torch.zeros_like(ramp)], dim=1)


def batch() -> Batch:
    return Batch(torch.rand(1, 1, 16, 16), None, torch.zeros(1, 16, 16, dtype=torch.int64))


def test_entropy_is_0_where_sure_and_1_where_all_classes_are_alike() -> None:
    probabilities = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    np.testing.assert_allclose(entropy(probabilities), [0.0, 1.0], atol=1e-9)


def test_flipped_copies_are_flipped_back_before_they_are_averaged() -> None:
    class OfItsInput(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([images, -images], dim=1)

    one = UNCERTAINTIES["entropy"]([OfItsInput()], batch_ := batch(), STUDY)
    many = UNCERTAINTIES["test-time-augmentation"]([OfItsInput()], batch_, STUDY)
    torch.testing.assert_close(one, many)


def test_dropout_needs_a_network_that_drops_and_leaves_its_mode() -> None:
    with pytest.raises(ExplanationError, match="use entropy or test-time-augmentation"):
        UNCERTAINTIES["dropout"]([Leftish(0.0)], batch(), STUDY)
    network = Leftish(0.5).eval()
    probabilities = UNCERTAINTIES["dropout"]([network], batch(), STUDY)
    assert not torch.allclose(probabilities, UNCERTAINTIES["entropy"]([network], batch(), STUDY))
    assert not network.drop.training


def test_an_ensemble_needs_the_models_of_two_sites() -> None:
    with pytest.raises(ExplanationError, match="two or more sites"):
        UNCERTAINTIES["ensemble"]([Leftish(0.0), Leftish(0.0)], batch(), STUDY)


def test_a_map_that_shows_the_errors_has_an_auroc_of_one() -> None:
    wrong = np.zeros((10, 10), bool)
    wrong[0, :5] = True
    sharp = errors_found(wrong.astype(float), wrong)
    assert (sharp.auroc, sharp.wrong, sharp.caught) == (1.0, 0.05, 1.0)
    assert errors_found(np.ones((10, 10)), wrong).auroc == 0.5
    assert np.isnan(errors_found(np.ones((10, 10)), np.zeros((10, 10), bool)).auroc)
