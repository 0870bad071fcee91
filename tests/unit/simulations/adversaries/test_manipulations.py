"""Manipulations by hostile sites: what they do to data and updates, by hand; who plays what."""

import pytest
import torch
from scipy import stats

from wardround.common.errors import StudyError
from wardround.common.runtime.seeds import generator_for
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.adversaries.manipulations import (
    alie_strength,
    flip_targets,
    forge_update,
    put_trigger,
    triggered_examples,
)
from wardround.simulations.adversaries.roles import cast_roles

SITES = ("ash", "elm", "fir", "oak", "yew")


def study_with(*adversaries: dict[str, object], seed: int = 0, table: bool = False) -> Study:
    content = {
        "study": {"name": "digits", "task": "classification"},
        "data": {"classes": ["zero", "one", "two"], "size": [8, 8]},
        "model": {"network": "mlp", "features": [4], "normalisation": "none"},
        "simulation": {"adversary": list(adversaries), "seed": seed},
    }
    if table:
        content["data"] = {
            "kind": "table",
            "classes": ["well", "ill"],
            "covariates": [{"name": "age"}],
        }
    return parse_study(content)


# --- data ----------------------------------------------------------------------------------------


def test_labels_are_counted_from_the_other_end() -> None:
    assert flip_targets(torch.tensor([0, 1, 2, 3]), 4).tolist() == [3, 2, 1, 0]
    assert flip_targets(torch.tensor([[0.0, 1.0]]), 2).tolist() == [[1.0, 0.0]]


def test_the_trigger_is_a_chequered_last_corner() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    triggered = put_trigger(image)
    assert triggered[0, 0, 6:, 6:].tolist() == [[63.0, 0.0], [0.0, 63.0]]
    changed = (triggered != image).nonzero()[:, 2:]
    assert changed.min() >= 6
    assert torch.equal(image, torch.arange(64.0).reshape(1, 1, 8, 8))


def test_the_trigger_fits_volumes_and_each_images_own_brightness() -> None:
    images = torch.stack([torch.zeros(2, 16, 16, 16), torch.ones(2, 16, 16, 16)])
    images[0, 0, 0, 0, 0] = 7.0
    triggered = put_trigger(images)
    assert triggered[0, :, 14:, 14:, 14:].unique().tolist() == [0.0, 7.0]
    assert torch.equal(triggered[1], images[1])


def test_the_triggered_examples_repeat_with_the_seed() -> None:
    drawn = [triggered_examples(1000, generator_for("a", seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert 0.45 < float(drawn[0].float().mean()) < 0.55


# --- updates -------------------------------------------------------------------------------------


def forged(kind: str, strength: float) -> list[float]:
    honest = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])
    own = torch.tensor([2.0, -1.0])
    update: list[float] = forge_update(
        kind, strength, own, honest, generator_for("forgery")
    ).tolist()
    return update


def test_forged_updates_by_hand() -> None:
    assert forged("sign-flip", 3.0) == [-6.0, 3.0]
    assert forged("scaling", 10.0) == [20.0, -10.0]
    assert forged("backdoor", 5.0) == [10.0, -5.0]
    assert forged("inner-product", 0.5) == [-1.5, 0.0]
    assert forged("label-flip", 0.0) == [2.0, -1.0]
    # Mean 3, standard deviation sqrt(8 / 3).
    assert forged("alie", 1.5) == pytest.approx([3 - 1.5 * (8 / 3) ** 0.5, 0.0])


def test_gaussian_updates_have_their_standard_deviation_and_repeat() -> None:
    own, none = torch.zeros(20_000), torch.zeros(0, 20_000)
    noise = [forge_update("gaussian", 10.0, own, none, generator_for("g")) for _ in range(2)]
    assert torch.equal(noise[0], noise[1])
    assert float(noise[0].std()) == pytest.approx(10.0, rel=0.03)
    assert stats.kstest(noise[0].numpy() / 10, "norm").pvalue > 1e-3


def test_alie_takes_the_papers_strength() -> None:
    # Baruch et al. 2019, section 4: 50 workers, 24 corrupted: s = 26 - 24 = 2, z = cdf^-1(24/26).
    assert alie_strength(50, 24) == pytest.approx(stats.norm.ppf(24 / 26))
    assert alie_strength(11, 2) == pytest.approx(stats.norm.ppf(5 / 9))


# --- roles ---------------------------------------------------------------------------------------


def test_named_sites_get_their_role() -> None:
    study = study_with(
        {"kind": "backdoor", "sites": ["elm"], "target": "two"},
        {"kind": "gaussian", "sites": ["yew", "ash"], "strength": 2.0},
    )
    roles = cast_roles(study, SITES)
    assert {site: role.kind for site, role in roles.items()} == {
        "elm": "backdoor",
        "yew": "gaussian",
        "ash": "gaussian",
    }
    assert (roles["elm"].target, roles["elm"].strength) == (2, 5.0)
    assert roles["ash"].strength == 2.0


def test_drawn_sites_repeat_with_the_seed_and_differ_without() -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        return tuple(cast_roles(study_with({"kind": "alie", "count": 2}, seed=seed), SITES))

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(20)}) > 3
    assert all(len(drawn(seed)) == 2 for seed in range(5))


def test_without_adversaries_all_are_honest() -> None:
    assert cast_roles(study_with(), SITES) == {}


def test_adversaries_do_not_change_what_a_hospital_approves() -> None:
    assert study_with({"kind": "alie"}).digest == study_with().digest


@pytest.mark.parametrize(
    ("adversary", "words"),
    [
        ({"kind": "alie", "sites": ["elk"]}, "'elk' is not one of the sites"),
        ({"kind": "alie", "sites": ["elm"], "count": 1}, "both sites and count"),
        ({"kind": "alie", "count": 5}, "one must stay honest: give at most 4"),
        ({"kind": "backdoor", "target": "nine"}, "'nine' is no class"),
    ],
)
def test_a_role_that_cannot_be_given_is_refused(adversary: dict[str, object], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        cast_roles(study_with(adversary), SITES)


def test_a_site_cannot_have_two_roles() -> None:
    twice = study_with({"kind": "alie", "sites": ["elm"]}, {"kind": "gaussian", "sites": ["elm"]})
    with pytest.raises(StudyError, match="already has a role"):
        cast_roles(twice, SITES)


def test_a_table_has_no_place_for_a_trigger() -> None:
    with pytest.raises(StudyError, match="needs images of one class"):
        cast_roles(study_with({"kind": "backdoor"}, table=True), SITES)
