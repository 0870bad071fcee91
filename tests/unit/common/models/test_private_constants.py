"""The whole numbers of a network that never change are no part of a private study's model."""

import torch

from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


def swin(**sections: object) -> Study:
    return parse_study(
        {
            "study": {"name": "places", "task": "segmentation"},
            "data": {"classes": ["background", "organ"], "size": [64, 64]},
            "model": {
                "network": "monai:SwinUNETR",
                "arguments": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1] * 4},
            },
            "training": {"optimiser": "sgd", "local_steps": 1},
            **sections,
        }
    )


def test_a_private_model_is_of_weights_alone() -> None:
    plain = build_network(swin(), 0)
    promise = {
        "mode": "patient",
        "noise_multiplier": 1.0,
        "sampling_rate": 0.1,
        "expected_patients": 10,
    }
    private = build_network(swin(privacy=promise), 0)
    weights = {name for name, _ in private.named_parameters()}
    left_out = set(plain.state_dict()) - set(private.state_dict())
    assert left_out
    assert all(name.endswith("relative_position_index") for name in left_out)
    assert set(private.state_dict()) <= weights
    kept = dict(private.named_buffers())
    assert all(torch.equal(kept[name], plain.state_dict()[name]) for name in left_out)
