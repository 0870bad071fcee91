"""Mean and relative corruption error, and the signs of a hidden gradient."""

import math

import pytest

from wardround.simulations.evidence.corruption_error import (
    errors_of,
    mean_corruption_error,
    relative_corruption_error,
)
from wardround.simulations.evidence.masking import attacked_model, signs_of_masking
from wardround.simulations.run_files.stress import AttackRow, CorruptionRow


def rows(model: str, clean: float, worse: dict[str, list[float]]) -> list[CorruptionRow]:
    def row(name: str, severity: int, error: float) -> CorruptionRow:
        return CorruptionRow(model, "all sites", name, severity, error, error, error, 10, 10)

    found = [row("none", 0, clean)]
    return found + [row(n, s, e) for n, errors in worse.items() for s, e in enumerate(errors, 1)]


def test_the_mean_corruption_error_is_that_of_the_paper() -> None:
    table = rows("federated", 0.1, {"jpeg": [0.2, 0.3], "motion": [0.1, 0.3]})
    table += rows("local", 0.2, {"jpeg": [0.4, 0.6], "motion": [0.3, 0.5]})
    own, base = errors_of(table, "federated"), errors_of(table, "local")
    assert own is not None
    assert base is not None
    assert own.mean == pytest.approx(0.225)
    assert own.worst.severity == 2
    assert mean_corruption_error(own, base) == pytest.approx((0.5 / 1.0 + 0.4 / 0.8) / 2)
    assert relative_corruption_error(own, base) == pytest.approx((0.3 / 0.6 + 0.2 / 0.4) / 2)
    assert mean_corruption_error(own, own) == pytest.approx(1)


def test_a_corruption_that_does_not_harm_the_baseline_has_no_ratio() -> None:
    table = rows("federated", 0.1, {"jpeg": [0.2]}) + rows("local", 0.2, {"jpeg": [0.2]})
    own, base = errors_of(table, "federated"), errors_of(table, "local")
    assert own is not None
    assert base is not None
    assert math.isnan(relative_corruption_error(own, base))


def test_a_model_without_rows_has_no_errors() -> None:
    assert errors_of([], "federated") is None
    assert errors_of(rows("federated", 0.1, {}), "federated") is None
    assert errors_of(rows("federated", 0.1, {"jpeg": [math.nan]}), "federated") is None


def attacks(**left: float) -> list[AttackRow]:
    def row(attack: str, epsilon: float, restarts: int, value: float) -> AttackRow:
        return AttackRow(
            "federated", "all sites", attack, epsilon, 20, restarts, "auroc", value, 0, 1, 9, 9
        )

    return [
        row("none", 0, 0, 0.95),
        row("fgsm", 4, 1, left.get("one", 0.6)),
        row("pgd", 4, 1, left.get("many", 0.5)),
        row("pgd", 4, 3, left.get("starts", 0.49)),
        row("transfer", 4, 1, left.get("other", 0.8)),
    ]


@pytest.mark.parametrize(
    ("left", "sign"),
    [
        ({}, None),
        ({"one": 0.495}, None),
        ({"one": 0.4}, "many small steps leave 0.490 and one large step 0.400"),
        ({"starts": 0.52}, "3 starts leave 0.520 and one 0.500"),
        ({"other": 0.3}, "images made against another model leave 0.300"),
    ],
)
def test_a_hidden_gradient_shows(left: dict[str, float], sign: str | None) -> None:
    found = attacked_model(attacks(**left), "federated")
    assert found is not None
    signs = signs_of_masking(found)
    assert (sign is None and not signs) or (sign is not None and sign in signs[0])
