"""Mean and second moments of a network's features, which travel with it as its numbers do."""

import torch
from torch import Tensor, nn

from wardround.common.errors import StudyError
from wardround.common.study.registry import MOST_MOMENTS

_NAME = "feature_moments"  # of the last layer, where a study's objective asks for them


class FeatureMoments(nn.Module):
    """``E[f]`` and ``E[f f^T]`` of what enters the last layer, over the patients of a round.

    Both are means over examinations, so the mean of sites' moments, weighted by their examinations,
    is that of all their patients. No answer of the network depends on them.

    Attributes:
        mean: ``(d,)``.
        second: ``(d, d)``; all 0 until somebody was seen.
    """

    mean: Tensor
    second: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("second", torch.zeros(features, features))

    def take(self, mean: Tensor, second: Tensor, share: float) -> None:
        """Move to the moments of further features, which are so large a share of all."""
        self.mean.lerp_(mean.to(self.mean), share)
        self.second.lerp_(second.to(self.second), share)


def add_moments(network: nn.Module, head: nn.Module) -> None:
    """Give a network the moments of what enters its last layer.

    Raises:
        StudyError: There are too many features.
    """
    width = int(getattr(head, "in_features", 0) or getattr(head, "in_channels", 0))
    if not 0 < width <= MOST_MOMENTS:
        msg = (
            f"the objective 'coral' sends the second moments of {width} features, the square of "
            f"as many numbers, and at most {MOST_MOMENTS} are sent: choose a narrower network "
            "or the objective 'aligned-features'."
        )
        raise StudyError(msg)
    # Not into the network: one that runs its parts in turn would run this one too.
    head.add_module(_NAME, FeatureMoments(width))
    if hasattr(network, "monai_definition"):  # with numbers more than MONAI's own has
        del network.monai_definition


def untouched_moments(network: nn.Module) -> dict[str, Tensor]:
    """Return the moments in a network as numbers of its own, as they are before training.

    A model that was trained without the objective, beside one that was, is completed with them: no
    answer depends on them.

    Args:
        network: Newly built.
    """
    return {
        f"{name}.{key}": value.clone()
        for name, layer in network.named_modules()
        if isinstance(layer, FeatureMoments)
        for key, value in layer.named_buffers()
    }


def moments_of(head: nn.Module) -> FeatureMoments:
    """Return what :func:`add_moments` added to a last layer."""
    found = head.get_submodule(_NAME)
    if not isinstance(found, FeatureMoments):
        msg = "the last layer holds no moments of features"
        raise TypeError(msg)
    return found
