import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from wardround.client.data.batch import Batch
from wardround.client.tasks.windows import Windows, slide_windows
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study


def segmentation_study(dimensions=2, **training) -> Study:
    return parse_study(
        {
            "study": {"name": "organs", "task": "segmentation"},
            "data": {"classes": ["background", "liver", "spleen"], "dimensions": dimensions},
            "model": {"network": "unet"},
            "training": training,
        }
    )


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class DivisibleOnly(nn.Module):
    """Refuses sizes that a four-level UNet refuses, and remembers what it saw."""

    def forward(self, images: Tensor) -> list[Tensor]:
        if any(size % 8 for size in images.shape[2:]):
            msg = "sizes of tensors must match"
            raise RuntimeError(msg)
        self.seen = images
        final = torch.cat([images, 2 * images, -images], dim=1)
        return [final, final[:, :, ::2]]  # deep supervision


def test_an_image_of_any_size_is_padded_for_the_network_and_cropped_back():
    images = torch.rand((2, 1, 13, 22), generator=seeded()) - 3
    network = DivisibleOnly()
    batch = Batch(images, None, torch.zeros(2, 13, 22))

    logits = predict(network, batch, segmentation_study())

    assert torch.equal(logits, torch.cat([images, 2 * images, -images], dim=1))
    assert network.seen.shape == (2, 1, 16, 24)
    assert network.seen[0, 0, 0, 0] == images[0].min()
    assert network.seen[1, 0, -1, -1] == images[1].min()


@pytest.mark.parametrize(("features", "seen"), [(None, (16, 24)), ((8, 16), (4, 18))])
def test_a_small_image_is_padded_to_what_the_levels_of_the_network_need(features, seen):
    class KeepsState(nn.Identity):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = images.shape[2:]
            return images

    study, network = segmentation_study(), KeepsState()
    if features:
        study = with_changes(study, {"model.features": features})
    images = torch.rand(1, 1, 3, 17)

    logits = predict(network, Batch(images, None, torch.zeros(1)), study)

    assert network.seen == seen
    assert torch.equal(logits, images)


@pytest.mark.parametrize(
    ("spatial", "patch"),
    [((40, 61), (16, 24)), ((16, 16), (16, 16)), ((5, 40), (16, 16)), ((9, 21, 17), (16, 16, 16))],
)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_windows_give_a_pointwise_network_the_whole_image(spatial, patch, overlap):
    study = with_changes(
        segmentation_study(dimensions=len(patch), patch_size=patch, batch_size=3),
        {"evaluation.overlap": overlap},
    )
    images = torch.randn((2, 1, *spatial), generator=seeded(8))
    network = DivisibleOnly()

    logits = predict(network, Batch(images, None, torch.zeros(2)), study)

    assert_close(logits, torch.cat([images, 2 * images, -images], dim=1))
    assert network.seen.shape[2:] == patch


def windows_by_hand(forward, images, patch, overlap):
    """Return the weighted mean of windows, one window at a time, as a loop says it."""
    axes = []
    for size, window in zip(images.shape[2:], patch, strict=True):
        step = max(int(window * (1 - overlap)), 1)
        count = math.ceil((size - window) / step) + 1
        starts = [min(index * step, size - window) for index in range(count)]
        axes.append([slice(start, start + window) for start in starts])
    weight = torch.ones(patch)
    for axis, size in enumerate(patch):
        offset = torch.arange(size) - (size - 1) / 2
        profile = torch.exp(-0.5 * (offset / (0.125 * size)) ** 2)
        weight *= profile.reshape([-1 if other == axis else 1 for other in range(len(patch))])
    weight.clamp_(min=1e-3)
    total, weights = torch.zeros(len(images), 3, *images.shape[2:]), torch.zeros(images.shape[2:])
    for box in itertools.product(*axes):
        total[:, :, *box] += forward(images[:, :, *box]) * weight
        weights[box] += weight
    return total / weights


@pytest.mark.parametrize(
    ("spatial", "patch", "overlap"),
    [((45, 37), (16, 24), 0.5), ((20, 23, 17), (8, 16, 16), 0.25), ((33, 16), (16, 16), 0.6)],
)
def test_windows_of_a_convolution_equal_a_loop_over_windows(spatial, patch, overlap):
    torch.manual_seed(0)
    convolution = (nn.Conv2d if len(patch) == 2 else nn.Conv3d)(1, 3, 5, padding=2)
    images = torch.randn((2, 1, *spatial), generator=seeded(9))

    with evaluating(convolution):
        ours = slide_windows(lambda seen, _: convolution(seen), images, Windows(patch, overlap, 4))
        by_hand = windows_by_hand(convolution, images, patch, overlap)

    assert_close(ours, by_hand, rtol=1e-4, atol=1e-5)


def test_an_image_smaller_than_the_patch_is_padded_with_its_darkest_value():
    images = torch.rand((2, 1, 5, 40), generator=seeded(3)) - 3
    seen = []

    def forward(windows: Tensor, cases: Tensor) -> Tensor:
        seen.append((windows.clone(), cases))
        return windows

    assert_close(slide_windows(forward, images, Windows((16, 16), 0.5, 3)), images)
    for windows, cases in seen:
        assert windows.shape[2:] == (16, 16)
        assert torch.equal(windows[:, 0, 0, 0], images.amin(dim=(1, 2, 3))[cases])


def test_covariates_go_with_every_window_of_their_case():
    class AddsAge(nn.Module):
        def forward(self, images: Tensor, covariates: Tensor) -> Tensor:
            return images + covariates[:, :, None, None]

    study = segmentation_study(patch_size=[16, 16], batch_size=5)
    images, ages = torch.zeros(3, 1, 40, 12), torch.tensor([[1.0], [2.0], [3.0]])

    logits = predict(AddsAge(), Batch(images, ages, torch.zeros(3)), study)

    assert_close(logits, ages[:, :, None, None].expand(3, 1, 40, 12))
