import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.common.models.networks.pooling import MaxPool2d

SHAPES = [(5, 16, 28, 28), (3, 8, 7, 9), (2, 4, 2, 2), (2, 3, 8, 8), (0, 4, 6, 6)]


def images_with_ties(shape: tuple[int, ...]) -> Tensor:
    """Rounded, so that most windows hold their greatest number more than once."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).mul(2).round().relu()


def pooled(layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    values: Tensor = layer(images)
    weights = torch.arange(values.numel(), dtype=values.dtype).reshape(values.shape)
    (gradient,) = torch.autograd.grad((values * weights).sum(), images)
    return values, gradient


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_torchs_to_the_last_bit(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images = images_with_ties(shape).to(dtype)
    ours, theirs = pooled(MaxPool2d(), images), pooled(nn.MaxPool2d(2), images)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].is_contiguous()


def test_images_laid_out_by_pixel_or_not_a_number_are_pooled_as_torch_does() -> None:
    images = images_with_ties((2, 8, 6, 6))
    images[0, 0, 0, 0] = float("nan")
    by_pixel = images.contiguous(memory_format=torch.channels_last)
    for given in (images, by_pixel):
        for ours, theirs in zip(
            pooled(MaxPool2d(), given), pooled(nn.MaxPool2d(2), given), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_without_gradients_it_is_the_same() -> None:
    images = images_with_ties((5, 16, 28, 28))
    with torch.inference_mode():
        assert torch.equal(MaxPool2d()(images), F.max_pool2d(images, 2))


def test_gradients_of_gradients_are_torchs() -> None:
    images = images_with_ties((2, 8, 6, 6))

    def twice(layer: nn.Module) -> Tensor:
        given = images.clone().requires_grad_()
        (once,) = torch.autograd.grad(layer(given).pow(3).sum(), given, create_graph=True)
        (gradient,) = torch.autograd.grad(once.square().sum(), given)
        return gradient

    assert torch.equal(twice(MaxPool2d()), twice(nn.MaxPool2d(2)))


def test_gradients_of_each_image_by_vmap_are_torchs() -> None:
    images = images_with_ties((5, 8, 6, 6))

    def each(layer: nn.Module) -> Tensor:
        def loss(image: Tensor) -> Tensor:
            values: Tensor = layer(image[None])
            return values.pow(3).sum()

        gradients: Tensor = torch.func.vmap(torch.func.grad(loss))(images)
        return gradients

    assert torch.equal(each(MaxPool2d()), each(nn.MaxPool2d(2)))
