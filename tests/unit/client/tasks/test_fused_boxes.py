"""Boxes of several views and models: turned back, fused, and the same whichever way one looks."""

import pytest
import torch
from tests.support.hospitals.blobs import blob_study

from wardround.client.data.batch import Batch
from wardround.client.tasks.anchors import Said
from wardround.client.tasks.detection import Detection
from wardround.client.tasks.fused_boxes import fuse_boxes, mirrored_back
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.errors import StudyError
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study

FROM_BOTH = [0.6, 1, 10, 10, 20, 20], [0.2, 1, 12, 10, 22, 20]


def rows_of(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)


def test_a_thing_that_two_members_found_lies_at_their_mean_by_score() -> None:
    fused = fuse_boxes([rows_of(FROM_BOTH[0]), rows_of(FROM_BOTH[1])], 300)

    # Solovyev et al. 2021, equations 1 to 5: (.6 * 10 + .2 * 12) / .8, and (.6 + .2) / 2.
    torch.testing.assert_close(fused, rows_of([0.4, 1, 10.5, 10, 20.5, 20]))


def test_what_one_of_three_found_is_told_with_a_third_of_its_score() -> None:
    nothing = rows_of([0.0, -1, 0, 0, 0, 0])

    fused = fuse_boxes([rows_of(FROM_BOTH[0]), nothing, nothing], 300)

    torch.testing.assert_close(fused, rows_of([0.2, *FROM_BOTH[0][1:]]))


def test_boxes_of_other_classes_and_apart_stay_two_and_the_surest_come_first() -> None:
    other, apart = [0.5, 0, 10, 10, 20, 20], [0.9, 1, 30, 30, 40, 40]

    fused = fuse_boxes([rows_of(FROM_BOTH[0], other), rows_of(apart)], 300)

    assert fused[:, :2].tolist() == [[0.45, 1], [0.3, 1], [0.25, 0]]
    assert len(fuse_boxes([rows_of(FROM_BOTH[0], other), rows_of(apart)], 2)) == 2


@pytest.mark.parametrize(("dimensions", "axes"), [(2, (-1,)), (2, (-2, -1)), (3, (-3, -1))])
def test_what_is_said_of_a_mirrored_image_is_turned_back_to_the_voxel(
    dimensions: int, axes: tuple[int, ...]
) -> None:
    study = parse_study(blob_study(dimensions))
    size = study.data.size or ()
    outputs = build_network(study, 0)(torch.randn(1, 1, *size)).detach()

    turned = mirrored_back(outputs, axes, size)

    low, high = Said.of(outputs, dimensions).boxes().chunk(2, dim=-1)
    for axis in axes:
        low[..., axis], high[..., axis] = size[axis] - high[..., axis], size[axis] - low[..., axis]
    torch.testing.assert_close(Said.of(turned, dimensions).boxes(), torch.cat([low, high], dim=-1))
    torch.testing.assert_close(mirrored_back(turned, axes, size), outputs)


def test_with_mirrored_tests_a_mirrored_image_holds_the_mirrored_boxes() -> None:
    plain = parse_study(blob_study(data={"augmentation": "histology"}))
    study = parse_study(
        blob_study(data={"augmentation": "histology"}, evaluation={"tta": "mirror"})
    )
    network, image = build_network(study, 0), torch.randn(1, 1, 48, 40)
    with torch.no_grad():
        network.head.classes.bias.fill_(-2.0)

    def scores(image: torch.Tensor, study: object) -> torch.Tensor:
        return predict(network, Batch(image, None, torch.zeros(1)), study)[0, :, 0]

    with evaluating(network):
        torch.testing.assert_close(scores(image, study), scores(image.flip(-1), study))
        assert not torch.equal(scores(image, plain), scores(image.flip(-1), plain))


def test_the_loss_of_mirrored_tests_is_a_number_of_every_image() -> None:
    study = parse_study(
        blob_study(data={"augmentation": "histology"}, evaluation={"tta": "mirror"})
    )
    network = build_network(study, 0)
    batch = Batch(torch.randn(2, 1, 48, 40), None, torch.zeros(2))

    outputs = Detection().outputs(network, batch, study)

    assert outputs.shape[1] == 4 * network(torch.randn(1, 1, 48, 40)).shape[1]


def test_mirrored_tests_of_boxes_need_mirrored_training() -> None:
    with pytest.raises(StudyError, match="shows it none"):
        parse_study(blob_study(data={"augmentation": "light"}, evaluation={"tta": "mirror"}))
