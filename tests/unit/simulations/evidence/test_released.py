import numpy as np
import pytest

from wardround.common.statistics.decisions.recalibration import with_temperature
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.evidence.answers import OWN, answers_at
from wardround.simulations.evidence.calibrated import FEWEST_PATIENTS, find_temperature
from wardround.simulations.evidence.released import release_of
from wardround.simulations.run_files.predictions import Key, Scores

SITES = ("north", "south")


def study_of(**sections: dict[str, object]) -> Study:
    base: dict[str, dict[str, object]] = {
        "study": {"name": "test", "task": "classification"},
        "data": {"classes": ["healthy", "disease"], "size": [32, 32]},
        "model": {"network": "small-cnn"},
    }
    names = [*base, *(name for name in sections if name not in base)]
    return parse_study({name: {**base.get(name, {}), **sections.get(name, {})} for name in names})


def drawn(seed: int, number: int, heat: float = 2.0) -> Scores:
    """Scores of a model that is too sure of itself by a factor of the log-odds."""
    generator = np.random.default_rng(seed)
    calm = 1 / (1 + np.exp(-generator.normal(0, 1.5, number)))
    truth = generator.random(number) < calm
    odds = (calm / (1 - calm)) ** heat
    second = odds / (1 + odds)
    labels = np.stack([~truth, truth], axis=1)
    people = np.arange(number)
    return Scores(people, people, np.stack([1 - second, second], axis=1), labels)


def run_of(number: int, heat: float = 2.0) -> dict[Key, Scores]:
    scores: dict[Key, Scores] = {}
    for index, site in enumerate(SITES):
        for model in ("federated", "pooled", f"local-{site}"):
            for place, split in enumerate(("validation", "test")):
                scores[model, site, split] = drawn(10 * index + place, number, heat)
    return scores


def test_the_temperature_of_a_model_that_is_too_sure_is_found_and_used() -> None:
    release = release_of("federated", run_of(500), SITES, study_of(), complete=True)
    assert release.temperature == pytest.approx(2.0, abs=0.3)
    assert release.threshold == 0.5
    assert "1000 validation patients" in release.note


def test_a_calibrated_model_keeps_its_probabilities_with_a_reason() -> None:
    found = find_temperature([drawn(3, 60, heat=1.0)], multi_label=False)
    assert found.used is None
    assert "left out" in found.reason


@pytest.mark.parametrize("number", [FEWEST_PATIENTS // 2 - 1, FEWEST_PATIENTS // 2])
def test_few_validation_patients_are_too_few(number: int) -> None:
    release = release_of("federated", run_of(number, heat=4.0), SITES, study_of(), complete=True)
    if 2 * number < FEWEST_PATIENTS:
        assert release.temperature is None
        assert f"{2 * number} validation patients are too few" in release.note
    else:
        assert release.temperature is not None


def test_a_hospital_with_many_images_of_few_patients_has_few_patients() -> None:
    part = drawn(1, 400, heat=4.0)
    few = Scores(part.cases, part.patients % 10, part.scores, part.labels)
    assert "10 validation patients are too few" in find_temperature([few], False).reason


def test_a_hospitals_own_model_is_calibrated_by_its_own_patients() -> None:
    scores = run_of(300)
    scores["local-north", "north", "validation"] = drawn(5, 300, heat=3.0)
    own = release_of("local-north", scores, SITES, study_of(), complete=True)
    assert own.temperature == pytest.approx(3.0, abs=0.6)
    assert "300 validation patients" in own.note
    personal = release_of("federated-south", scores, SITES, study_of(), complete=True)
    assert "300 validation patients" in personal.note


def test_without_validation_patients_or_all_weights_there_is_no_temperature() -> None:
    nothing = release_of("federated", {}, SITES, study_of(), complete=True)
    assert nothing.temperature is None
    assert "no validation patients" in nothing.note
    part = release_of("federated", run_of(300), SITES, study_of(), complete=False)
    assert part.temperature is None
    assert "not all" in part.note


def test_a_study_with_privacy_says_nothing_of_its_validation_patients() -> None:
    private = study_of(
        privacy={"mode": "site", "noise_multiplier": 1.0, "clip_norm": 1.0},
        evaluation={"keep": "last", "operating_point": {"sensitivity": 0.9}},
        federation={"strategy": "fedavg", "minimum_sites": 2},
        model={"normalisation": "group"},
    )
    release = release_of("federated", run_of(300), SITES, private, complete=True)
    assert (release.temperature, release.threshold) == (None, 0.5)
    assert "promises privacy" in release.note


def test_the_operating_point_of_two_classes_is_the_threshold_of_the_model() -> None:
    study = study_of(evaluation={"operating_point": {"sensitivity": 0.9}})
    scores = run_of(400)
    release = release_of("federated", scores, SITES, study, complete=True)
    answers = answers_at(scores, "federated", SITES, "validation", multi_label=False)
    assert answers is not None
    assert release.temperature is not None
    cooled = with_temperature(answers.scores, release.temperature)[:, 1]
    found = (cooled >= release.threshold)[answers.labels[:, 1]].mean()
    assert 0.9 <= found < 0.91
    assert "90 % of the cases" in release.note


def test_patients_of_two_hospitals_are_different_people() -> None:
    answers = answers_at(run_of(30), OWN, SITES, "test", multi_label=False)
    assert answers is not None
    assert (len(answers), answers.people) == (60, 60)
    assert answers_at(run_of(30), "ensemble", SITES, "test", multi_label=False) is None
