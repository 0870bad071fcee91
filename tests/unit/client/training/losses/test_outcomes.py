"""Losses of numbers and times, held against lifelines and statsmodels."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi

from wardround.client.training.losses.outcomes import OUTCOME_LOSSES, PiecewiseHazard, cox

TIMES = (10.0, 20.0, 35.0, 52.0)


def rossi() -> tuple[torch.Tensor, torch.Tensor, pd.DataFrame]:
    """Return ages, prior arrests and follow-up of 432 released convicts; ties are many."""
    table = load_rossi()
    inputs = torch.tensor(table[["age", "prio"]].to_numpy(), dtype=torch.float64)
    targets = torch.tensor(table[["week", "arrest"]].to_numpy(), dtype=torch.float64)
    return inputs, targets, table


def test_cox_is_the_partial_likelihood_of_lifelines_with_efrons_ties():
    inputs, targets, table = rossi()
    fit = CoxPHFitter().fit(table[["week", "arrest", "age", "prio"]], "week", "arrest")
    ratios = inputs @ torch.tensor(fit.params_[["age", "prio"]].to_numpy())

    total = cox(ratios[:, None], targets).sum()

    assert float(total) == pytest.approx(-fit.log_likelihood_, rel=1e-6)


def test_sites_mean_losses_weighted_by_patients_are_least_where_stratified_cox_is():
    inputs, targets, table = rossi()
    table["site"] = np.arange(len(table)) % 3
    columns = ["week", "arrest", "age", "prio", "site"]
    fit = CoxPHFitter().fit(table[columns], "week", "arrest", strata=["site"])
    weights = torch.tensor(fit.params_[["age", "prio"]].to_numpy(), requires_grad=True)

    total = torch.zeros(())
    for site in range(3):
        own = torch.tensor((table["site"] == site).to_numpy())
        mean = cox((inputs[own] @ weights)[:, None], targets[own]).mean()
        total = total + mean * own.sum()  # as federated averaging weighs a site
    total.backward()

    assert float(total.detach()) == pytest.approx(-fit.log_likelihood_, rel=1e-6)
    assert weights.grad is not None
    assert weights.grad.abs().max() < 0.05  # of a sum over 114 events; lifelines stops there


def test_the_piecewise_hazard_is_that_of_a_poisson_regression():
    inputs, targets, _ = rossi()
    edges = np.array([0, *TIMES])
    rows, exposure, happened = [], [], []
    for time, event in targets.numpy():
        for k in range(len(TIMES)):
            if time > edges[k]:
                rows.append(np.eye(len(TIMES))[k])
                exposure.append((min(time, edges[k + 1]) - edges[k]) / (edges[k + 1] - edges[k]))
                happened.append(event * (time <= edges[k + 1]))
    fit = sm.GLM(
        happened, np.array(rows), family=sm.families.Poisson(), offset=np.log(exposure)
    ).fit()
    hazards = torch.tensor(np.exp(fit.params))
    outputs = hazards.expm1().log().expand(len(inputs), -1).clone().requires_grad_()

    losses = PiecewiseHazard(TIMES)(outputs, targets)
    losses.sum().backward()

    assert outputs.grad is not None
    assert outputs.grad.sum(0).abs().max() < 1e-3
    # Both are log-likelihoods of the same events; Poisson's counts the exposures' logarithms too.
    of_events = np.array(happened) > 0
    shared = float(np.log(np.array(exposure)[of_events]).sum())
    assert float(losses.detach().sum()) == pytest.approx(-(fit.llf - shared), rel=1e-5)


def test_one_patients_piecewise_hazard_depends_on_nobody_else():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 4, generator=generator)
    outputs[5] = outputs[4]
    targets = torch.tensor([[0.0, 1], [0, 0], [10, 1], [52, 1], [60, 1], [60, 0]])
    loss = PiecewiseHazard(TIMES)
    alone = torch.cat([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(6)])
    assert torch.equal(loss(outputs, targets), alone)
    assert alone.isfinite().all()
    assert alone[1] == 0  # nobody was followed
    assert alone[4] == alone[5]  # an event beyond the horizon is not looked at


def test_losses_stay_numbers_where_outputs_are_far_off():
    far = torch.tensor([[200.0], [-200.0], [0.0]], requires_grad=True)
    targets = torch.tensor([[3.0, 1], [3, 1], [3, 0]])
    for loss in (cox, PiecewiseHazard((5.0,))):
        found = loss(far, targets)
        assert found.isfinite().all()
        (gradient,) = torch.autograd.grad(found.sum(), far)
        assert gradient.isfinite().all()


def test_losses_of_numbers_are_those_of_their_names():
    outputs, targets = torch.tensor([[0.5], [3.0]]), torch.tensor([[0.0], [0.0]])
    assert OUTCOME_LOSSES["mse"](outputs, targets, None).tolist() == [0.25, 9.0]
    assert OUTCOME_LOSSES["l1"](outputs, targets, None).tolist() == [0.5, 3.0]
    assert OUTCOME_LOSSES["huber"](outputs, targets, None).tolist() == [0.125, 2.5]
