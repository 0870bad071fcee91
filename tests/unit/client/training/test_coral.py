"""CORAL: the paper's distance, moments that add up over sites, and what goes with it or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.hospitals.every_task import study_of
from tests.support.hospitals.image_ward import ward_study
from tests.unit.client.training.test_feature_objectives import start_of

from wardround.client.data.batch import Batch
from wardround.client.session.model_context import ModelContext
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective
from wardround.common.errors import StudyError
from wardround.common.models.networks.feature_moments import moments_of
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import head_layer


def started(**sections: Any) -> tuple[ModelContext, LocalStart]:
    asked = {"objective": "coral", "options": {"feature_weight": 0.5}}
    federation = {**asked, **sections.get("federation", {})}
    study = ward_study(**{**sections, "federation": federation})
    context = ModelContext.build(study, "cpu")
    return context, start_of(context)


def batch_of(seed: int) -> Batch:
    drawn = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Batch(drawn * (1 + seed), None, torch.zeros(2, 16, 16, 16))


def features_of(context: ModelContext, batch: Batch) -> np.ndarray:
    """The features as rows, float64, seen from outside."""
    seen: list[torch.Tensor] = []
    look = head_layer(context.network).register_forward_pre_hook(lambda _, i: seen.append(i[0]))
    context.network(*batch.inputs)
    look.remove()
    return seen[0].detach().movedim(1, -1).flatten(0, -2).double().numpy()


def test_the_term_is_the_papers_distance_of_covariances() -> None:
    context, start = started()
    moments, batch = moments_of(head_layer(context.network)), batch_of(0)
    width = len(moments.mean)
    drawn = torch.randn(50, width, generator=torch.Generator().manual_seed(1))
    moments.take(drawn.mean(0), drawn.T @ drawn / 50, 1.0)
    objective = build_objective(start)
    assert objective is not None
    rows = features_of(context, batch)

    adjusted = objective.adjust(torch.tensor(1.0), batch)

    own, everybody = (np.cov(one.T, bias=True) for one in (rows, drawn.double().numpy()))
    apart = ((own - everybody) ** 2).sum() / (4 * width**2)  # Sun and Saenko 2016, equation 1
    assert apart > 0
    assert adjusted.item() == pytest.approx(1 + 0.5 * apart, rel=1e-4)
    adjusted.backward()
    assert any(weight.grad is not None for weight in context.network.parameters())


def test_a_first_round_aligns_nothing_and_leaves_the_network_as_it_was() -> None:
    context, start = started()
    objective, batch = build_objective(start), batch_of(0)
    assert objective is not None
    context.network(*batch.inputs)

    assert objective.adjust(torch.tensor(1.0), batch) == 1

    assert moments_of(head_layer(context.network)).second.any(), "but its patients are counted"
    assert objective.memory() == objective.auxiliary() == {}
    del objective
    assert not head_layer(context.network)._forward_pre_hooks
    assert not context.network._forward_pre_hooks


def test_the_mean_of_the_sites_moments_is_that_of_all_their_patients() -> None:
    gathered, of_sites = [], []
    for seeds in ((1, 2, 3), (4,)):  # three batches at one site, one at the other
        context, start = started()
        objective = build_objective(start)
        assert objective is not None
        for seed in seeds:
            gathered.append(features_of(context, batch_of(seed)))
            objective.adjust(torch.tensor(0.0), batch_of(seed))
        found = moments_of(head_layer(context.network))
        of_sites.append((len(seeds) / 4, found.mean.double(), found.second.double()))
    pooled = np.concatenate(gathered)

    mean = sum(share * one for share, one, _ in of_sites)
    second = sum(share * one for share, _, one in of_sites)

    np.testing.assert_allclose(mean, pooled.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second, pooled.T @ pooled / len(pooled), rtol=1e-4, atol=1e-5)


def test_moments_travel_as_the_networks_numbers_do_and_no_gradient_changes_them() -> None:
    context, _ = started()
    names = {name for name in context.layout.shared if "feature_moments" in name}
    assert len(names) == 2
    assert not names & context.layout.trainable


def test_a_network_that_runs_its_parts_in_turn_answers_as_without_moments() -> None:
    with_moments, plain = (
        build_network(study_of("small features", Path(), federation={"objective": one}), 0)
        for one in ("coral", "small-features")
    )
    image = torch.randn(2, 1, 24, 24)
    torch.testing.assert_close(with_moments(image), plain(image))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"privacy": {"mode": "site", "noise_multiplier": 1.0}}, "sends second moments"),
        (
            {"privacy": {"mode": "patient", "noise_multiplier": 1.0, "sampling_rate": 0.5}},
            "sends moments of features",
        ),
        ({"federation": {"secure_aggregation": True}}, "sums numbers of a range"),
        ({"model": {"features": [2, 4096]}}, "at most 2048 features"),
        ({"federation": {"share": "all-but-head"}}, "leaves it at each site"),
    ],
)
def test_what_noise_would_spoil_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        started(**sections)
