from typing import Any

import pytest

from wardround.common.errors import StudyError
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


def study_of(classes: tuple[str, ...] = ("healthy", "disease"), **evaluation: Any) -> Study:
    multi_label = evaluation.pop("multi_label", False)
    return parse_study(
        {
            "study": {"name": "test", "task": "classification"},
            "data": {"classes": list(classes), "size": [32, 32], "multi_label": multi_label},
            "model": {"network": "small-cnn"},
            "evaluation": evaluation,
        }
    )


def test_a_study_says_where_it_acts_and_how_many_have_it() -> None:
    study = study_of(operating_point={"sensitivity": 0.9}, prevalence={"disease": 0.02})
    said = explain_study(study)
    assert "a threshold for disease is chosen on validation patients" in said
    assert "finds at least 90 % of its cases" in said
    assert "disease 2 %" in said


def test_without_them_nothing_is_said_of_decisions() -> None:
    assert "How acting on the model is judged" not in explain_study(study_of())


def test_of_many_classes_each_is_judged_by_itself() -> None:
    said = explain_study(study_of(("a", "b", "c"), operating_point={"specificity": 0.95}))
    assert "each class by itself" in said
    assert "leaves at least 95 % of the others alone" in said


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"operating_point": {}}, "neither of sensitivity and specificity"),
        ({"operating_point": {"sensitivity": 0.9, "specificity": 0.9}}, "names both"),
        ({"operating_point": {"sensitivity": 1.0}}, "less than 1"),
        ({"operating_point": {"sensitivity": 0.0}}, "greater than 0"),
        ({"prevalence": {"diseased": 0.1}}, "unknown class 'diseased'"),
        ({"prevalence": {"healthy": 0.1}}, "give the prevalence of 'disease'"),
        ({"prevalence": 0.1}, "by class, as { disease = 0.02 }"),
    ],
)
def test_what_does_not_fit_is_refused(evaluation: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        study_of(**evaluation)


def test_shares_of_exclusive_classes_add_up_to_one_at_most_and_labels_need_not() -> None:
    shares = {"prevalence": {"b": 0.6, "c": 0.6}}
    with pytest.raises(StudyError, match=r"adds up to 1\.2"):
        study_of(("a", "b", "c"), **shares)
    assert study_of(("a", "b", "c"), multi_label=True, **shares).evaluation.prevalence["c"] == 0.6


def test_a_segmentation_has_no_operating_point() -> None:
    content = {
        "study": {"name": "test", "task": "segmentation"},
        "data": {"classes": ["background", "lesion"], "size": [32, 32]},
        "model": {"network": "unet"},
        "evaluation": {"operating_point": {"sensitivity": 0.9}, "prevalence": {"lesion": 0.1}},
    }
    with pytest.raises(StudyError, match="is for classification: remove it") as refused:
        parse_study(content)
    assert "evaluation.prevalence is for classification" in str(refused.value)
