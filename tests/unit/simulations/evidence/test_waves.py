"""The numbers of continual learning, against a table worked out by hand."""

import math

import pytest
from tests.unit.common.study.rules.test_continual_rules import HELD, study

from wardround.server.checkpoints.promotions import margin_of
from wardround.simulations.evidence.waves import falls_of, sequel_of
from wardround.simulations.run_files.waves import DRAWN, MADE, PARENT, WaveRow

# After wave 1, 2, 3 on the test patients of waves 1, 2, 3.
TABLE = {(1, 1): 0.9, (2, 1): 0.92, (3, 1): 0.8, (2, 2): 0.85, (3, 2): 0.7, (3, 3): 0.95}
BEFORE = {(2, 2): 0.6, (3, 3): 0.5}  # of the parent, on what is new
BLANK = {1: 0.5, 2: 0.4, 3: 0.3}


def rows(metric: str = "auroc", digest: str = "s") -> list[WaveRow]:
    made = [
        WaveRow(digest, after, MADE, "all sites", wave, metric, value, 10)
        for (after, wave), value in TABLE.items()
    ]
    parents = [
        WaveRow(digest, after, PARENT, "all sites", wave, metric, value, 10)
        for (after, wave), value in BEFORE.items()
    ]
    drawn = [WaveRow(digest, 3, DRAWN, "all sites", w, metric, v, 10) for w, v in BLANK.items()]
    return [*made, *parents, *drawn]


def test_each_number_is_what_its_paper_defines() -> None:
    found = sequel_of(rows())
    assert found is not None
    assert found.waves == (1, 2, 3)
    assert found.average == pytest.approx((0.8 + 0.7 + 0.95) / 3)
    assert found.backward_transfer == pytest.approx(((0.8 - 0.9) + (0.7 - 0.85)) / 2)
    assert found.forward_transfer == pytest.approx(((0.6 - 0.4) + (0.5 - 0.3)) / 2)
    # The best that wave 1 ever was, was after wave 2.
    assert found.forgetting == pytest.approx(((0.92 - 0.8) + (0.85 - 0.7)) / 2)
    assert found.plasticity == pytest.approx(((0.85 - 0.6) + (0.95 - 0.5)) / 2)


def test_of_a_metric_of_which_less_is_better_the_signs_turn() -> None:
    found, turned = sequel_of(rows()), sequel_of(rows("loss"))
    assert found is not None
    assert turned is not None
    assert turned.average == found.average
    assert turned.backward_transfer == pytest.approx(-found.backward_transfer)
    assert turned.plasticity == pytest.approx(-found.plasticity)


def test_the_first_study_of_a_sequence_has_forgotten_nothing_that_is_known() -> None:
    first = [row for row in rows() if row.after == 1]
    found = sequel_of(first)
    assert found is not None
    assert found.average == 0.9
    assert math.isnan(found.forgetting)
    assert math.isnan(found.forward_transfer)
    assert sequel_of([]) is None


def test_a_run_whose_parents_rows_are_lost_is_held_against_the_parents_model() -> None:
    """As in a federation, where the server has no patients of its own."""
    own = [
        WaveRow("s", 2, MADE, "all sites", 1, "auroc", 0.8, 10),
        WaveRow("s", 2, MADE, "all sites", 2, "auroc", 0.9, 10),
        WaveRow("s", 2, PARENT, "all sites", 1, "auroc", 0.85, 10),
        WaveRow("s", 2, PARENT, "all sites", 2, "auroc", 0.7, 10),
    ]
    found = sequel_of(own)
    assert found is not None
    assert found.forgetting == pytest.approx(0.05)
    assert found.plasticity == pytest.approx(0.2)


def test_a_site_falls_by_what_it_loses_and_may_have_a_margin_of_its_own() -> None:
    asked = study({**HELD, "margin": 0.02, "margins": {"south": 0.2}})
    digest = asked.digest
    table = [
        WaveRow(digest, 2, model, site, 1, asked.metric, value, 10)
        for site, values in {"north": (0.9, 0.87), "south": (0.9, 0.75)}.items()
        for model, value in zip((PARENT, MADE), values, strict=True)
    ]
    falls = {one.site: one for one in falls_of(table, asked)}
    assert falls["north"].fall == pytest.approx(0.03)
    assert falls["north"].is_beyond
    assert not falls["south"].is_beyond
    assert margin_of(study({**HELD}), "north") == study({**HELD}).evaluation.margin


def test_a_value_that_is_not_defined_is_no_reason_to_promote() -> None:
    asked = study(HELD)
    table = [
        WaveRow(asked.digest, 2, PARENT, "north", 1, asked.metric, 0.9, 10),
        WaveRow(asked.digest, 2, MADE, "north", 1, asked.metric, math.nan, 10),
    ]
    assert falls_of(table, asked)[0].is_beyond


def test_a_fall_comes_with_what_its_patients_can_tell_of_it_and_all_sites_come_last() -> None:
    asked = study({**HELD, "margin": 0.02})
    sizes = {"all sites": (33, math.nan), "north": (30, 0.01), "south": (3, math.inf)}
    table = [
        WaveRow(asked.digest, 2, model, site, 1, asked.metric, value, 40, people, reach)
        for site, (people, reach) in sizes.items()
        for model, value in ((PARENT, 0.9), (MADE, 0.8))
    ]
    north, south, together = falls_of(table, asked)
    assert (north.site, north.patients, north.is_beyond) == ("north", 30, True)
    assert (south.patients, south.is_beyond, south.is_doubtful) == (3, False, True)
    assert "too few patients to tell" in south.words()
    assert together.site == "all sites"
    assert together.reach is None
