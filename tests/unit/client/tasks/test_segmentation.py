import pytest
import torch

from wardround.client.tasks.segmentation import count_segmentation, most_likely_classes
from wardround.common.metrics.sums import MetricSums, summarise
from wardround.common.study.loading import parse_study
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


@pytest.mark.parametrize("shape", [(4, 3, 9, 7), (2, 14, 5, 6, 4), (1, 2, 8, 8)])
def test_the_most_likely_class_is_that_of_the_largest_logit(shape):
    logits = torch.randn(shape, generator=seeded(11))

    assert torch.equal(most_likely_classes(logits), logits.argmax(dim=1))
    assert not most_likely_classes(torch.zeros(shape)).any()


def test_a_structure_that_is_missed_counts_in_surface_dice_and_not_in_hd95():
    study = segmentation_study()
    truth = torch.zeros((1, 8, 8), dtype=torch.int64)
    truth[0, 2:5, 2:5] = 1

    measured = count_segmentation(torch.zeros_like(truth), truth, study, [(1.0, 1.0)])

    summary = summarise(MetricSums(1, 0.0, measured), study)
    values = {(value.metric, value.class_name): value for value in summary}
    assert (values["dice", "liver"].value, values["dice", "liver"].support) == (0.0, 1)
    assert values["surface-dice", "liver"].support == 1
    assert values["surface-dice", "liver"].value == 0.0
    assert values["hd95", "liver"].support == 0
