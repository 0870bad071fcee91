"""ComBat from sums: the numbers of the reference program on all patients in one place."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wardround.common.errors import RunError
from wardround.common.statistics.combat import fit_combat, moments

FEATURES, KEPT = (3, 4, 7, 9), (0, 1)  # trestbps, chol, thalach, oldpeak; age, sex


def oracle(features: np.ndarray, kept: np.ndarray, site: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuroCombat import neuroCombat

        table = pd.DataFrame({"site": site, "age": kept[:, 0], "sex": kept[:, 1]})
        found = neuroCombat(
            dat=features.T.copy(),
            covars=table,
            batch_col="site",
            categorical_cols=["sex"],
            continuous_cols=["age"],
        )
    return found["data"].T


def distributed(
    features: np.ndarray, kept: np.ndarray, site: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    names = sorted(set(site))
    scaled = features / unit
    told = {n: moments(kept[site == n] / 100, scaled[site == n]) for n in names}
    fit = fit_combat(told, kept.shape[1])
    adjusted = np.empty_like(features)
    for name in names:
        rows = site == name
        adjusted[rows] = fit.adjust(name, scaled[rows], kept[rows] / 100) * unit
    return adjusted


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    site = np.repeat(["a", "b", "c"], [40, 25, 60])
    kept = np.column_stack([generator.integers(30, 80, 125), generator.integers(0, 2, 125)])
    features = generator.normal(size=(125, 5)) + 0.02 * kept[:, :1] + kept[:, 1:]
    features[site == "b"] = features[site == "b"] * 2 + np.arange(5)
    return features, kept.astype(float), site


def test_sums_give_the_numbers_of_all_patients_in_one_place() -> None:
    features, kept, site = drawn()
    expected = oracle(features, kept, site)
    found = distributed(features, kept, site, np.ones(5))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    assert np.abs(expected - features).max() > 1


def test_the_heart_covariates_are_those_of_all_patients_in_one_place(shared_data: Path) -> None:
    rows, sites = [], []
    for file in sorted((shared_data / "uci_heart_disease").glob("processed.*.data")):
        for cells in csv.reader(file.read_text().splitlines()):
            if "?" not in (chosen := [cells[place] for place in (*FEATURES, *KEPT)]):
                rows.append([float(cell) for cell in chosen])
                sites.append(file.name.split(".")[1])
    table, site = np.array(rows), np.array(sites)
    features, kept = table[:, : len(FEATURES)], table[:, len(FEATURES) :]
    assert len(set(site)) == 4
    expected = oracle(features, kept, site)
    found = distributed(features, kept, site, np.array([100.0, 300.0, 100.0, 3.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_a_preserved_category_that_is_told_twice_changes_nothing() -> None:
    features, kept, site = drawn()
    double = np.column_stack([kept, 1 - kept[:, 1]])
    once, twice = (distributed(features, k, site, np.ones(5)) for k in (kept, double))
    np.testing.assert_allclose(once, twice, atol=1e-8)


def test_rounding_does_not_decide_whether_a_constant_feature_of_a_site_has_a_spread() -> None:
    """The reference takes a variance of 0 for 1, and by rounding sometimes finds one of 1e-32."""
    features, kept, site = drawn()
    found = []
    for constant, unit in ((0.0, 1.0), (0.0, 0.7), (1.0, 1.0), (1.0, 10.0), (7 / 9, 0.7)):
        moved = features - np.eye(5)[2] * (features[site == "b", 2].mean() - constant)
        moved[site == "b", 2] = constant
        adjusted = distributed(moved, kept[:, :0], site, np.full(5, unit))
        found.append(adjusted - np.eye(5)[2] * constant)

    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=0, atol=1e-8)


def test_a_site_where_nothing_varies_is_moved_and_not_scaled() -> None:
    features, kept, site = drawn()
    features[site == "b"] = 7 / 9
    told = {n: moments(kept[site == n][:, :0], features[site == n]) for n in sorted(set(site))}

    fit = fit_combat(told, 0)

    np.testing.assert_allclose(fit.scales[1], 1, atol=1e-3)
    assert np.isfinite(fit.shifts).all()


def test_what_cannot_be_fitted_is_refused_in_words() -> None:
    features, kept, site = drawn()
    told = {n: moments(kept[site == n], features[site == n]) for n in ("a", "b")}
    with pytest.raises(RunError, match="1 gave its sums: ask two"):
        fit_combat({"a": told["a"]}, 2)
    with pytest.raises(RunError, match="there is one: give two"):
        fit_combat({n: m[:4, :4] for n, m in told.items()}, 2)
    with pytest.raises(RunError, match="b has fewer"):
        fit_combat({**told, "b": moments(kept[:2], features[:2])}, 2)
    constant = np.column_stack([features, np.ones(len(site))])
    with pytest.raises(RunError, match="feature 6 of ComBat does not vary"):
        fit_combat({n: moments(kept[site == n], constant[site == n]) for n in ("a", "b")}, 2)
