"""Every task and objective on a device that is not the CPU: nothing is mixed, hardly any waits.

All of it is done once, in a process of its own, on the stand-in of ``stand_in.py``.
"""

import json

import pytest
from tests.unit.client.devices.names import ANSWERED, COUNTED, EXPLAINED, ROUNDS
from tests.unit.client.devices.outcomes import Results, of, work_apart

from wardround.client.training.objectives.registry import OBJECTIVES
from wardround.common.study.registry import TASKS

pytestmark = pytest.mark.long

_MOST_APART = 1e-3  # after two rounds; orders of sums differ


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return work_apart("rounds", tmp_path_factory.mktemp("rounds"))


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_on_a_device_come_to_what_they_come_to_on_the_cpu(
    results: Results, name: str
) -> None:
    assert of(results, f"rounds {name}")["apart"] < _MOST_APART


@pytest.mark.parametrize("name", COUNTED)
def test_a_step_of_any_task_waits_at_most_once(results: Results, name: str) -> None:
    step = of(results, f"steps {name}")
    assert step["synchronisations"] <= 1, (step["waits"], step["blocking"])


@pytest.mark.parametrize("name", COUNTED)
def test_an_evaluation_of_any_task_waits_once_a_batch(results: Results, name: str) -> None:
    batch = of(results, f"batches {name}")
    assert batch["synchronisations"] <= 1, (batch["waits"], batch["blocking"])
    assert batch["same"]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_model_answers_on_a_device_what_it_answers_on_the_cpu(
    results: Results, name: str
) -> None:
    assert of(results, f"answers {name}")["apart"] < _MOST_APART


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_explanation_is_made_where_the_network_is(results: Results, name: str) -> None:
    assert of(results, f"explained {name}")["apart"] < _MOST_APART


def test_no_task_and_no_objective_is_left_out(results: Results) -> None:
    done = json.dumps(results["studied"])
    assert [name for name in (*TASKS, *OBJECTIVES) if f'"{name}"' not in done] == []
