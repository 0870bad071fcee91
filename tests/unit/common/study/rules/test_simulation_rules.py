"""What no data could give to a simulation, ``study check`` says before any patient is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.common.errors import StudyError
from wardround.common.study.loading import load_study, parse_study, require_simulation
from wardround.common.study.plans.strategy import FEWEST_SITES
from wardround.common.study.study import Study


def study(federation: dict[str, Any] | None = None, **simulation: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "rules", "task": "classification"},
            "data": {"classes": ["a", "b", "c"], "size": [8, 8]},
            "model": {"network": "small-cnn"},
            "federation": federation or {},
            "simulation": simulation,
        }
    )


@pytest.mark.parametrize("name", sorted(FEWEST_SITES))
def test_a_rule_that_needs_more_sites_than_are_simulated_is_refused(name: str) -> None:
    factor, extra = FEWEST_SITES[name]
    asked = {"aggregation": name, "options": {"assumed_hostile": 2}}
    require_simulation(study(asked, sites=2 * factor + extra))
    with pytest.raises(StudyError, match=rf"needs {2 * factor + extra} sites in a round .* raise"):
        require_simulation(study(asked, sites=2 * factor + extra - 1))


def test_a_fraction_of_the_sites_counts() -> None:
    asked = {"strategy": "krum", "fraction": 0.5, "options": {"assumed_hostile": 0}}
    require_simulation(study(asked, sites=5))
    with pytest.raises(StudyError, match=r"simulation.sites = 4 with federation.fraction = 0.5"):
        require_simulation(study(asked, sites=4))
    require_simulation(study({**asked, "minimum_sites": 3}, sites=4))


def test_the_remedy_names_how_many_hostile_sites_could_be_withstood() -> None:
    with pytest.raises(StudyError, match=r"lower federation.options.assumed_hostile to 0"):
        require_simulation(study({"strategy": "bulyan"}, sites=4))
    with pytest.raises(StudyError, match=r"raise it, or choose another strategy\."):
        require_simulation(study({"strategy": "bulyan"}, sites=2))


def test_how_many_sites_a_natural_split_has_is_known_from_the_data_alone() -> None:
    require_simulation(study({"strategy": "bulyan"}, sites=1, split="natural"))


def test_classes_that_find_no_place_are_refused() -> None:
    require_simulation(study(split="classes", sites=1, classes_per_site=3))
    with pytest.raises(StudyError, match=r"of the 3 classes: raise one of them\."):
        require_simulation(study(split="classes", sites=1, classes_per_site=2))


@pytest.mark.parametrize(("sites", "code"), [(4, 1), (5, 0)])
def test_study_check_says_so(
    tmp_path: Path, wardround: Callable[..., Any], sites: int, code: int
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(study({"strategy": "krum"}, sites=sites).to_toml(), encoding="utf-8")
    said = wardround("study", "check", path)
    assert bool(said.code) == bool(code)
    assert ("cannot be simulated" in said.err) == bool(code)


def test_a_federation_reads_nothing_of_a_simulation(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(study({"strategy": "krum"}, sites=1).to_toml(), encoding="utf-8")
    assert load_study(path).federation.strategy == "krum"


@pytest.mark.parametrize("network", ["attention-unet", "densenet121", "resnet18"])
def test_site_privacy_refuses_a_network_whose_own_normalisation_is_over_the_batch(
    network: str,
) -> None:
    task = "segmentation" if network == "attention-unet" else "classification"
    content = {
        "study": {"name": "rules", "task": task},
        "data": {"classes": ["a", "b"], "size": [64, 64]},
        "model": {"network": network},
        "privacy": {"mode": "site", "noise_multiplier": 1.0},
        "evaluation": {"keep": "last"},
    }
    with pytest.raises(StudyError, match=r"averages running .* 'group'"):
        parse_study(content)
    parse_study({**content, "model": {"network": network, "normalisation": "group"}})
