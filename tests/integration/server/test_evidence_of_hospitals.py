"""Hospitals with policies of their own, asked for evidence at the end of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.hospitals.hospital import ALONE, STUDY, log_of, write_site

from wardround.client.privacy.ledger.file import read_ledger
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.evidence import EvidenceRow, read_evidence
from wardround.simulations.experiment.federation import open_grid, run_federation


def study_with(packs: list[str], privacy: Mapping[str, Any] | None = None) -> Study:
    content = STUDY.model_dump(exclude_defaults=True)
    content["federation"] = {"rounds": 1}
    content["evaluation"] = {"pack": packs, "test_fraction": 0.3}
    if privacy is not None:
        content["privacy"] = dict(privacy)
    return parse_study(content)


def run(tmp_path: Path, study: Study, **policy: str) -> tuple[EvidenceRow, ...]:
    said = {"approved": f'["{study.digest}"]', **policy}
    folders = [write_site(tmp_path / name, 200, **said) for name in ("north", "south")]
    with open_grid(folders, study, ALONE) as grid:
        run_federation(grid, study, tmp_path / "run")
    return read_evidence(tmp_path / "run")


def test_each_hospital_tells_what_its_policy_lets_out_and_the_server_keeps_it(
    tmp_path: Path,
) -> None:
    rows = run(tmp_path, study_with(["intervals", "gains"]), packs='["intervals"]')
    notes = {row.site: row.note for row in rows if row.metric == "told"}
    assert set(notes) == {"north", "south"}
    assert all("60 test patients; no number is of fewer than 10" in one for one in notes.values())
    assert all("its policy lets gains not out" in one for one in notes.values())
    area = next(r for r in rows if (r.site, r.metric) == ("all sites", "auroc"))
    assert area.low is not None
    assert area.lost > 0
    gains = [row for row in rows if row.pack == "gains"]
    assert all(row.value is None for row in gains)
    kinds = [entry.event.kind for entry in log_of(tmp_path / "north")]
    assert kinds[-2:] == ["pack", "placements"]


def test_a_hospital_that_refuses_is_named_and_the_run_ends_all_the_same(tmp_path: Path) -> None:
    rows = run(tmp_path, study_with(["intervals"]))
    assert [(row.site, row.metric) for row in rows] == [("north", "refused"), ("south", "refused")]


def test_under_privacy_the_test_patients_are_measured_once_with_noise_and_charged(
    tmp_path: Path,
) -> None:
    privacy = {"mode": "patient", "epsilon": 8.0, "sampling_rate": 0.1, "expected_patients": 20}
    rows = run(tmp_path, study_with(["intervals"], privacy))
    areas = {row.site: row for row in rows if row.metric == "auroc" and not row.subject}
    assert set(areas) == {"north", "south", "all sites"}
    assert all(row.low is not None for row in areas.values())
    assert all(row.note == "the interval is that of the noise alone" for row in areas.values())
    reserved = [e.fact for e in read_ledger(tmp_path / "north").entries]
    parts = [getattr(fact, "part", "") for fact in reserved if type(fact).__name__ == "Reserved"]
    assert parts.count("test") == 1
    kinds = [entry.event.kind for entry in log_of(tmp_path / "north")]
    assert not {"pack", "placements"} & set(kinds)
