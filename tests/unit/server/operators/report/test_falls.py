"""How far a model falls at each site, from numbers worked out by hand."""

from dataclasses import replace

import pytest
from tests.unit.common.study.rules.test_continual_rules import HELD, study
from tests.unit.server.operators.test_wire import DETAILS

from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.operators.messages import RunRecord, SiteValue
from wardround.server.operators.report.falls import falls_at_server

STARTED = "less the model that training started from"


def record(values: dict[str, tuple[float, float]], *evidence: EvidenceRow) -> RunRecord:
    rows = [
        SiteValue(site, number, "validation", value)
        for site, pair in values.items()
        for number, value in zip((0, 5), pair, strict=True)
    ]
    return RunRecord(replace(DETAILS, evidence=evidence), "", "", (), tuple(rows))


def test_validation_patients_tell_and_all_sites_come_last() -> None:
    asked = study({**HELD, "margin": 0.05})
    values = {"all sites": (0.9, 0.91), "mean of sites": (0.1, 0.9), "north": (0.9, 0.8)}
    north, together = falls_at_server(record(values), asked, 5)
    assert (north.site, north.split, north.reach) == ("north", "validation", None)
    assert north.fall == pytest.approx(0.1)
    assert north.is_beyond
    assert (together.site, together.is_beyond) == ("all sites", False)


def test_intervals_of_the_sites_patients_tell_how_sure_a_fall_is() -> None:
    asked = study({**HELD, "margin": 0.05})
    told = EvidenceRow("intervals", "north", "", asked.metric, 0.8, 0.7, 0.9, patients=12)
    (north,) = falls_at_server(record({"north": (0.9, 0.8)}, told), asked, 5)
    assert north.reach == pytest.approx(0.1 * 2**0.5)
    assert north.is_doubtful


def test_each_patient_held_against_himself_is_taken_where_the_site_told_it() -> None:
    asked = study({**HELD, "margin": 0.05})
    rows = (
        EvidenceRow("intervals", "north", "", asked.metric, 0.8, 0.7, 0.9, patients=40),
        EvidenceRow(
            "gains", "north", STARTED, f"difference of {asked.metric}", -0.1, -0.12, -0.08,
            patients=40,
        ),
    )  # fmt: skip
    (north,) = falls_at_server(record({"north": (0.9, 0.9)}, *rows), asked, 5)
    assert (north.split, north.patients) == ("test", 40)
    assert (north.before, north.fall) == (pytest.approx(0.9), pytest.approx(0.1))
    assert north.reach == pytest.approx(0.02)
    assert north.is_beyond
