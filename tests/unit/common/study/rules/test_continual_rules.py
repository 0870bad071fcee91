"""What a study that goes on from another one may ask for, and what it is told of the rest."""

from typing import Any

import pytest

from wardround.common.errors import StudyError
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, study_from_json
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study

PARENT, MODEL, FILE = "a" * 64, "b" * 64, "c" * 64
HELD = {"parent": PARENT, "model": MODEL, "wave": 2}


def study(held: dict[str, Any] | None = None, **sections: Any) -> Study:
    content: dict[str, Any] = {
        "study": {"name": "goes on", "task": "classification"},
        "data": {"classes": ["a", "b", "c"], "size": [8, 8]},
        "model": {"network": "small-cnn", "normalisation": "group", "weights_sha256": FILE},
        **sections,
    }
    if held is not None:
        content["continual"] = held
    return parse_study(content)


def test_a_study_without_waves_keeps_its_digest() -> None:
    """Of 0.9: hospitals have approved it."""
    content = {
        "study": {"name": "approved", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [8, 8]},
        "model": {"network": "small-cnn"},
    }
    assert parse_study(content).digest == (
        "12fffc759d6910823c146348bec4be8f13d7986b2b38dbb0efa0b447a37d266b"
    )


def test_the_parent_and_the_hash_of_its_model_are_under_the_digest() -> None:
    first = study(HELD)
    assert study_from_json(first.to_json()).digest == first.digest
    others = [study({**HELD, key: "d" * 64}).digest for key in ("parent", "model")]
    assert len({first.digest, *others}) == 3


def test_a_hospital_reads_whose_model_it_starts_from_and_which_rows_are_old() -> None:
    said = explain_study(study(HELD))
    assert PARENT in said
    assert MODEL in said
    assert "rows with 2 in the column wave" in said
    assert "its own old rows again beside new ones, 50 % of each batch" in said


@pytest.mark.parametrize(
    ("method", "objective"),
    [
        ("none", "plain"),
        ("replay", "plain"),
        ("ewc", "elastic-weights"),
        ("lwf", "distillation"),
    ],
)
def test_a_method_is_a_local_objective_on_top_of_the_strategy(method: str, objective: str) -> None:
    asked = study({**HELD, "method": method})
    assert plan_of(asked).objective == objective
    assert "train on new rows alone" in explain_study(asked) or method == "replay"


@pytest.mark.parametrize(
    ("held", "sections", "said"),
    [
        ({"parent": PARENT}, {}, "name one model, and only one of them is there"),
        (HELD, {"model": {"network": "small-cnn"}}, "model.weights_sha256 is not"),
        ({"method": "ewc"}, {}, "continual.parent names none"),
        ({"classes": 2}, {}, "continual.classes is of a parent's model"),
        ({**HELD, "classes": 4}, {}, "and there are 3"),
        ({**HELD, "method": "none", "replay": 0.5}, {}, "continual.replay has no effect"),
        ({**HELD, "weight": 2.0}, {}, "continual.weight has no effect"),
        ({**HELD, "method": "ewc", "temperature": 3.0}, {}, "continual.temperature has no effect"),
        (HELD, {"training": {"sampling": "balanced"}}, "both say whom a batch is of"),
        (HELD, {"federation": {"strategy": "fedper"}}, "keeps a part of the model at each site"),
        (
            {**HELD, "method": "lwf"},
            {"federation": {"strategy": "fedprox"}},
            "the strategy has 'proximal' there",
        ),
        (None, {"federation": {"objective": "distillation"}}, "set continual.method = 'lwf'"),
        ({"wave": 0}, {}, "continual.wave"),
        ({**HELD, "replay": 1.0}, {}, "continual.replay"),
        ({**HELD, "method": "gem"}, {}, "continual.method"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    held: dict[str, Any] | None, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError) as refused:
        study(held, **sections)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"method": "ewc"}, "reads old patients' gradients without noise"),
        ({"method": "lwf"}, "past the clipping"),
        ({"replay": 0.5}, "old and new patients are then drawn alike"),
    ],
)
def test_under_patient_privacy_nothing_reads_old_patients_past_the_noise(
    held: dict[str, Any], said: str
) -> None:
    promise = {"mode": "patient", "epsilon": 8.0, "delta": 1e-5, "sampling_rate": 0.1}
    sections = {"privacy": {**promise, "expected_patients": 30}, "evaluation": {"keep": "last"}}
    with pytest.raises(StudyError, match=said):
        study({**HELD, **held}, **sections)
    said_of = explain_study(study(HELD, **sections))
    assert "each patient drawn with the same probability" in said_of
    assert "adds" not in said_of or "privacy ledger" in said_of


def test_what_needs_classes_is_not_held_to_answers_by_class() -> None:
    outcome = {"outcome": {"name": "size", "range": [0.0, 1.0]}, "size": [8, 8]}
    with pytest.raises(StudyError, match="the task regression has none"):
        study(
            {**HELD, "method": "lwf"},
            study={"name": "goes on", "task": "regression"},
            data=outcome,
        )
