import pytest
from tests.support.clinic.drawn_cases import drawn_cases

from wardround.client.clinic.monitoring.comparison.evidence import (
    SHARES,
    Budget,
    Finding,
    look_at_period,
    strata,
)
from wardround.client.clinic.monitoring.monitor import Rules, look_back
from wardround.client.clinic.monitoring.words import sentences

BUDGET = Budget(0.25 / 52, "test")
REFERENCE = drawn_cases(200, 0)


def alarms(found: list[Finding]) -> set[tuple[str, str, str]]:
    return {(one.family, one.name, one.scanner) for one in found if one.level == "alarm"}


def test_the_shares_of_a_period_are_all_of_it() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_nothing_has_changed_where_nothing_has() -> None:
    own = drawn_cases(50, 1)
    assert not alarms(look_at_period(REFERENCE, own, own, BUDGET))


def test_the_same_cases_give_the_same_p_values_again() -> None:
    own = drawn_cases(50, 1)
    looks = [look_at_period(REFERENCE, own, own, BUDGET) for _ in range(2)]
    assert [one.p for one in looks[0]] == [one.p for one in looks[1]]


def test_a_statistic_that_moved_is_named_with_how_far() -> None:
    own = drawn_cases(40, 1, shift=2)
    found = look_at_period(REFERENCE, own, own, BUDGET)
    assert ("image statistics", "mean", "") in alarms(found)
    (told,) = sentences(found, "alarm")
    assert told.startswith("The images look different (40 images). Mean is 2.")
    assert "standard deviations" in told


def test_a_change_of_prevalence_is_seen_in_predicted_classes_alone() -> None:
    own = drawn_cases(100, 1, rate=0.15)
    found = look_at_period(REFERENCE, own, own, BUDGET)
    assert alarms(found) == {("predictions", "abnormal", "")}
    (told,) = sentences(found, "alarm")
    assert told == "The class abnormal is found in 9 % of 100 images; in the reference 46 %."


def test_images_of_a_scanner_are_held_against_the_same_scanner_s() -> None:
    two = drawn_cases(200, 0, scanners=("A", "B"))
    other_mix = drawn_cases(40, 1, scanners=("A", "A", "A", "B"))
    assert [(name, len(old), len(new)) for name, old, new in strata(two, other_mix)] == [
        ("A", 100, 30),
        ("B", 100, 10),
    ]
    only_b = [
        *drawn_cases(20, 1, scanners=("A",)),
        *drawn_cases(20, 2, shift=3, scanners=("B",)),
    ]
    found = alarms(look_at_period(two, only_b, only_b, BUDGET))
    assert {scanner for _, _, scanner in found} == {"B"}


def test_a_scanner_that_is_new_is_said_and_held_against_all() -> None:
    two = drawn_cases(200, 0, scanners=("A", "B"))
    own = [*drawn_cases(20, 1, scanners=("A",)), *drawn_cases(20, 2, scanners=("C",))]
    assert [(name, len(old)) for name, old, _ in strata(two, own)] == [("A", 100), ("C", 200)]
    entry = look_back(two, ("1", {"1": own}), (), Rules(BUDGET.alpha, "test"))
    assert entry["notices"][0] == "The scanner C is new: 20 images, and none in the reference."
    assert entry["verdict"] == "notice"
