"""By what a study groups its patients, and in which group a cell's text is."""

import pytest
from tests.support.stage import table_study

from wardround.common.errors import StudyError
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.subgroups import (
    MISSING,
    THIRDS,
    Grouping,
    columns_of,
    groupings_of,
    thirds_of,
)

STUDY = table_study("tiny")


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("40", "<=40"),
        ("40.5", "41-60"),
        ("41", "41-60"),
        ("60.0", "41-60"),
        ("61", ">60"),
        ("-3", "<=40"),
        ("", MISSING),
        ("?", MISSING),
        ("old", MISSING),
        ("nan", MISSING),
        ("1e400", MISSING),
    ],
)
def test_an_age_is_in_a_band(text: str, group: str) -> None:
    assert Grouping("age", (40, 60)).group_of(text) == group


def test_bands_of_fractions_are_called_by_their_ends() -> None:
    assert Grouping("bmi", (18.5, 25)).groups == ("<=18.5", "18.5-25", ">25", MISSING)


def test_an_unknown_value_of_a_category_is_missing_and_other_texts_are_groups() -> None:
    assert Grouping("sex", values=("f", "m")).group_of("x") == MISSING
    assert Grouping("ward").group_of(" A 3 ") == "A 3"
    assert Grouping("sex").group_of("1.0") == Grouping("sex").group_of("1") == "1"


def test_quality_is_three_groupings_that_no_column_is_read_for() -> None:
    image = {"evaluation.subgroups": ["age", "ward", "a"], "evaluation.bands": {"a": [0.0]}}
    study = with_changes(STUDY, image)
    assert [one.bounds for one in groupings_of(study)] == [(40, 60), (), (0,)]
    assert columns_of(study) == ("age", "ward")
    assert groupings_of(STUDY) == ()


def test_equal_values_are_in_one_third() -> None:
    assert thirds_of([3, 1, 2]) == (THIRDS[2], THIRDS[0], THIRDS[1])
    assert thirds_of([5, 5, 5, 5]) == (THIRDS[0],) * 4
    assert thirds_of([float("nan"), 1]) == (MISSING, THIRDS[0])
    assert thirds_of([]) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation.subgroups": ["sex", "sex"]}, "sex twice"),
        ({"evaluation.subgroups": ["patient"]}, "'patient', a column with a meaning"),
        ({"evaluation.subgroups": ["sharpness"]}, "name 'quality'"),
        ({"evaluation.subgroups": ["quality"]}, "a table has no images"),
        ({"evaluation.bands": {"age": [40.0]}}, "for nothing that evaluation.subgroups"),
        (
            {"evaluation.subgroups": ["age"], "evaluation.bands": {"age": [60.0, 40.0]}},
            "does not ascend",
        ),
    ],
)
def test_subgroups_that_contradict_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        with_changes(STUDY, changes)
