"""Patch, depth and batch as nnU-Net plans them."""

import pytest

from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.server.planning.network_plan import feature_numbers, plan_network


def test_hippocampus_gets_the_patch_and_batch_that_nnu_net_publishes() -> None:
    plan = plan_network((1.0, 1.0, 1.0), (36, 50, 35), images=260, classes=3)
    assert (plan.patch, plan.batch) == ((40, 56, 40), 9)
    assert plan.widths == (32, 64, 128, 256)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [
        ((1.0, 1.0, 1.0), (240, 240, 155)),
        ((5.0, 0.8, 0.8), (40, 512, 512)),
        ((0.5, 0.5), (2000, 2600)),
        ((1.0, 1.0, 1.0), (9, 500, 500)),
        ((1.0, 1.0), (20, 20)),
    ],
)
def test_a_plan_fits_its_network_and_its_memory(
    spacing: tuple[float, ...], size: tuple[int, ...]
) -> None:
    plan = plan_network(spacing, size, images=100, classes=3)
    step = 2 ** (len(plan.widths) - 1)
    assert all(side % step == 0 for side in plan.patch)
    assert plan.memory <= 1
    assert plan.batch >= 2
    study = parse_study(
        {
            "study": {"name": "planned", "task": "segmentation"},
            "data": {"dimensions": len(size), "classes": ["a", "b", "c"]},
            "model": {"network": "dynunet", "features": list(plan.widths)},
            "training": {"patch_size": list(plan.patch), "batch_size": plan.batch},
        }
    )
    assert build_network(study, 0) is not None


def test_feature_numbers_are_counted_by_hand() -> None:
    # 8^3 and 4^3 voxels: two convolutions down on each level, three maps up, and the classes.
    assert feature_numbers((8, 8, 8), (2, 4), 3) == (
        2 * 512 * 2 + 2 * 64 * 4 + 3 * 512 * 2 + 3 * 512
    )
