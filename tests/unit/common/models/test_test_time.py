"""Batch normalisation that looks at the image it is given too."""

from typing import Any

import pytest
import torch
from torch import nn

from wardround.common.errors import StudyError
from wardround.common.models.networks.registry import build_network
from wardround.common.models.networks.test_time import mix_statistics
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import NETWORKS
from wardround.common.study.rules.sections.network import _BATCH_BY_DEFAULT
from wardround.common.study.study import Study


def study_of(network: str = "unet", **model: Any) -> Study:
    task = NETWORKS[network].tasks[0]
    return parse_study(
        {
            "study": {"name": "s", "task": task},
            "data": {"classes": ["a", "b"], "size": [64, 64]},
            "model": {"network": network, **model},
        }
    )


def layer_of(weight: float) -> nn.Module:
    layer = nn.Sequential(nn.BatchNorm2d(3))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        layer[0].bias.fill_(0.25)
        layer(torch.randn(16, 3, 8, 8))
    mix_statistics(layer, weight)
    return layer


def test_with_all_of_its_own_an_image_of_another_scale_is_the_same() -> None:
    layer, image = layer_of(1.0).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(image), layer(5 * image + 3), atol=1e-3, rtol=1e-3)


def test_each_image_is_by_itself_and_training_is_as_it_was() -> None:
    torch.manual_seed(0)
    layer, images = layer_of(0.3), torch.randn(5, 3, 8, 8)
    layer.eval()
    alone = torch.cat([layer(one[None]) for one in images])
    torch.testing.assert_close(layer(images), alone)
    plain = nn.Sequential(nn.BatchNorm2d(3))
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer.train()(images), plain.train()(images))
    few = layer_of(1e-9).eval()
    plain.load_state_dict(few.state_dict())
    torch.testing.assert_close(few(images), plain.eval()(images))


def test_the_study_has_it_built_in_with_the_same_numbers() -> None:
    mixed = build_network(study_of(normalisation="batch", test_time_statistics=0.5), 0)
    plain = build_network(study_of(normalisation="batch"), 0)
    assert mixed.state_dict().keys() == plain.state_dict().keys()
    image = 3 * torch.randn(1, 1, 64, 64)
    assert not torch.allclose(mixed.eval()(image), plain.eval()(image))


def test_a_network_without_batch_statistics_is_refused_in_clear_words() -> None:
    for model in ({"normalisation": "instance"}, {"normalisation": "group"}, {}):
        with pytest.raises(StudyError, match=r"does nothing for unet.*look at the image alone"):
            study_of(test_time_statistics=0.5, **model)
    with pytest.raises(StudyError, match="partly frozen"):
        study_of(normalisation="batch", test_time_statistics=0.5, frozen=["*bias"])


@pytest.mark.parametrize("name", ["attention-unet", "resnet18", "basic-unet", "segresnet"])
def test_the_rule_knows_which_networks_have_batch_statistics_of_their_own(name: str) -> None:
    features = {"features": [4, 8]} if name == "attention-unet" else {}
    network = build_network(study_of(name, **features), 0)
    found = any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    assert found == (name in _BATCH_BY_DEFAULT)
