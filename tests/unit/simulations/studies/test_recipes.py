"""The recipes of the built-in studies: keys that fit, and a default that is the file itself."""

import json
from pathlib import Path

import pytest

from wardround.common.errors import InputError
from wardround.simulations.cli.progress import pace_of
from wardround.simulations.cli.simulate import Options, resolve_study
from wardround.simulations.run_files.events import RoundDone
from wardround.simulations.studies import built_in_names, find_study
from wardround.simulations.studies.recipes import CPU_MINUTES, RECIPES, recipes_of, with_recipe

EVERY = [(name, recipe) for name in built_in_names() for recipe in recipes_of(name)]


@pytest.mark.parametrize(("name", "recipe"), EVERY)
def test_every_recipe_is_a_study_of_the_same_patients(name: str, recipe: str) -> None:
    study, plain = with_recipe(find_study(name), name, recipe), find_study(name)
    assert (study.digest == plain.digest) == (recipe == "default")
    assert study.study == plain.study
    assert study.simulation == plain.simulation
    assert study.privacy == plain.privacy
    fractions = ("validation_fraction", "test_fraction")
    for key in fractions:
        assert getattr(study.evaluation, key) == getattr(plain.evaluation, key)


def test_every_built_in_study_says_what_its_recipes_change() -> None:
    assert set(RECIPES) == set(built_in_names())
    assert all(set(measured) <= set(recipes_of(name)) for name, measured in CPU_MINUTES.items())


def test_what_is_set_by_hand_goes_before_the_recipe() -> None:
    options = Options("hippocampus", recipe="best", changes=("model.deep_supervision=0",))
    study = resolve_study(options)
    assert (study.model.network, study.model.deep_supervision) == ("dynunet", 0)


@pytest.mark.parametrize(
    ("name", "recipe", "words"),
    [
        ("hippocampus", "bset", "best, default, fast"),
        ("heart-disease", "best", "fast"),
        ("study.toml", "best", "no built-in study"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(
    name: str, recipe: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        with_recipe(find_study("hippocampus"), name, recipe)


def test_the_page_says_what_each_recipe_changes() -> None:
    page = (Path(__file__).parents[4] / "docs/how-to/recipes.md").read_text(encoding="utf-8")
    for name, recipes in RECIPES.items():
        for recipe, changes in recipes.items():
            said = ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in changes.items())
            assert f"| `{name}` | `{recipe}` | {said} |" in page


def test_the_second_round_says_how_long_all_of_them_take() -> None:
    def done(number: int, seconds: float, stage: str = "federated") -> RoundDone:
        return RoundDone(stage, number, 80, "dice", 0.5, 46, seconds)

    assert pace_of(done(2, 12.0)) == "at this pace all 80 rounds take about 16 minutes"
    for other in (done(1, 12.0), done(3, 12.0), done(2, 0.5), done(2, 12.0, "pooled")):
        assert pace_of(other) == ""
