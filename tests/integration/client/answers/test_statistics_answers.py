"""What a hospital answers to a study that asks for statistics: once, bounded, written down."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.hospitals.hospital import (
    ask,
    instruction_for,
    log_of,
    refusal_of,
    write_policy,
)
from tests.support.hospitals.image_ward import ask_statistics, volume, ward_study, write_ward

from wardround.client.app import close_sessions
from wardround.client.egress.answers import statistics as statistics_answer
from wardround.client.privacy.ledger.file import read_ledger
from wardround.common.flower.messages.content import arrays_of, to_bytes
from wardround.common.messages.audit import REPORT_RECORD
from wardround.common.messages.instructions import EVALUATE, TRAIN
from wardround.common.messages.replies import unpack_refusal
from wardround.common.messages.statistics import SiteStatistics, unpack_statistics
from wardround.common.study.plans.statistics import asked_histograms
from wardround.common.study.study import Study

PLAIN = ward_study(statistics={"intensity_bins": 32})
PRIVATE = ward_study("patient", statistics={"epsilon": 1.0, "intensity_bins": 32})
VOLUMES = [volume(seed, (10 + seed % 3, 12, 8)) for seed in range(26)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


def ward(tmp_path: Path, study: Study, **policy: str) -> Path:
    return write_ward(tmp_path / "north", VOLUMES, study, **policy)


def cells_of(content: object) -> bytes:
    return b"".join(one.data for one in arrays_of(content)["histograms"].values())  # type: ignore[arg-type]


def test_what_crosses_the_wall_is_the_fixed_histograms_and_no_cell_of_few(tmp_path: Path) -> None:
    folder = ward(tmp_path, PLAIN, smallest_cell="10", smallest_cohort="10")
    content = ask_statistics(folder, PLAIN)
    assert set(content) - {REPORT_RECORD} == {"header", "histograms", "facts"}
    said = unpack_statistics(content, PLAIN)
    assert said.patients == 20
    assert set(said.cells) == {one.name for one in asked_histograms(PLAIN)}
    for one in asked_histograms(PLAIN):
        cells = said.cells[one.name]
        assert cells.shape == (one.cells,)
        if one.is_whole:
            assert set(cells.tolist()) <= {0.0, 10.0, 20.0}, one.name
        else:
            np.testing.assert_allclose(cells, np.round(cells, 3))
    assert b"CANARY" not in to_bytes(content)
    assert [e.event.kind for e in log_of(folder)] == ["statistics"]
    assert log_of(folder)[-1].event.bytes > 0


@pytest.mark.parametrize("study", [PLAIN, PRIVATE], ids=["plain", "private"])
def test_asked_again_the_same_bytes_leave_though_the_patients_changed(
    tmp_path: Path, study: Study
) -> None:
    folder = ward(tmp_path, study)
    first = cells_of(ask_statistics(folder, study))
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-1]))
    close_sessions()
    assert cells_of(ask_statistics(folder, study)) == first
    assert cells_of(ask_statistics(folder, study)) == first


def test_a_private_answer_is_charged_once_to_the_training_patients(tmp_path: Path) -> None:
    folder = ward(tmp_path, PRIVATE)
    for _ in range(3):
        assert unpack_refusal(ask_statistics(folder, PRIVATE)) is None
    reserved = [e.fact for e in read_ledger(folder).entries if type(e.fact).__name__ == "Reserved"]
    assert [(one.part, one.steps, one.sampling_rate) for one in reserved] == [("train", 1, 1.0)]


def test_a_policy_that_says_nothing_of_statistics_tells_none(tmp_path: Path) -> None:
    folder = ward(tmp_path, PLAIN, statistics='"no"')
    assert refusal_of(ask_statistics(folder, PLAIN))[1] == "policy"
    assert not (folder / "statistics").exists()


def test_only_so_many_studies_are_told_without_noise(tmp_path: Path) -> None:
    studies = [ward_study(statistics={"intensity_bins": bins}) for bins in (32, 33, 34)]
    approved = str([one.digest for one in studies]).replace("'", '"')
    folder = ward(tmp_path, studies[0])
    said = {"statistics": '"yes"', "smallest_cell": "1", "smallest_cohort": "1"}
    write_policy(folder, approved=approved, largest_statistics="2", **said)
    answers = [unpack_refusal(ask_statistics(folder, one)) for one in studies]
    assert [answer is None for answer in answers] == [True, True, False]
    assert answers[2] is not None
    assert answers[2].code == "policy"
    assert unpack_refusal(ask_statistics(folder, studies[0])) is None  # what was told stays told


def test_nothing_is_trained_or_measured_for_a_study_that_asks_for_statistics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ward(tmp_path, PLAIN)
    for kind in (TRAIN, EVALUATE):
        refusal = refusal_of(ask(folder, kind, instruction_for(folder, 1, PLAIN), PLAIN))
        assert refusal[1] == "input"
    assert caplog.text.count("asks for statistics alone") == 2


def test_a_study_that_trains_is_told_no_statistics(tmp_path: Path) -> None:
    training = ward_study()
    folder = ward(tmp_path, training)
    assert refusal_of(ask_statistics(folder, training))[1] == "input"
    assert refusal_of(ask_statistics(folder, training, digest=PLAIN.digest))[1] == "input"


def test_an_image_in_the_place_of_cells_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that was changed by mistake would be caught by the guard, and nothing is kept."""
    folder = ward(tmp_path, PLAIN, smallest_cell="10", smallest_cohort="10")
    honest = statistics_answer.reduce_statistics

    def smuggling(*words: Any) -> SiteStatistics:
        said = honest(*words)
        cells = dict(said.cells)
        cells["intensity-0"] = VOLUMES[3].ravel()[:32].astype(np.float64) / 1000
        return replace(said, cells=cells)

    monkeypatch.setattr(statistics_answer, "reduce_statistics", smuggling)
    assert refusal_of(ask_statistics(folder, PLAIN))[1] == "guard"
    assert not list((folder / "statistics").glob("*.answer"))
    monkeypatch.undo()
    assert unpack_refusal(ask_statistics(folder, PLAIN)) is None
