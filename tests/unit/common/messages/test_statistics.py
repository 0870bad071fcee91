"""Statistics that came in a message: what no patients can give is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from tests.support.hospitals.image_ward import ward_study

from wardround.common.errors import RunError
from wardround.common.messages.statistics import (
    Cells,
    SiteStatistics,
    asked_digest,
    pack_statistics,
    question_content,
    unpack_statistics,
)
from wardround.common.study.plans.statistics import asked_histograms

STUDY = ward_study(statistics={"intensity_bins": 16})


def said(patients: int = 20) -> SiteStatistics:
    cells: dict[str, Cells] = {}
    for one in asked_histograms(STUDY):
        cells[one.name] = np.zeros(one.cells)
        cells[one.name][0] = 20.0 if one.is_whole else 1.0
    return SiteStatistics("north", STUDY.digest, patients, cells)


def test_what_was_packed_is_unpacked() -> None:
    found = unpack_statistics(pack_statistics(said()), STUDY)
    assert (found.site, found.patients) == ("north", 20)
    for name, cells in said().cells.items():
        np.testing.assert_array_equal(found.cells[name], cells)
    assert asked_digest(question_content(STUDY)) == STUDY.digest


def _negative(cells: dict[str, Cells]) -> None:
    cells["size-0"][3] = -1


def _endless(cells: dict[str, Cells]) -> None:
    cells["size-0"][3] = np.inf


def _too_many(cells: dict[str, Cells]) -> None:
    cells["size-0"][3] = 1


def _too_much(cells: dict[str, Cells]) -> None:
    cells["intensity-0"][3] = 0.01


def _of_another_shape(cells: dict[str, Cells]) -> None:
    cells["size-0"] = np.zeros(7)


def _of_another_type(cells: dict[str, Cells]) -> None:
    cells["size-0"] = cells["size-0"].astype(np.float32)  # type: ignore[assignment]


def _one_more(cells: dict[str, Cells]) -> None:
    cells["image"] = np.zeros(7)


@pytest.mark.parametrize(
    "spoil",
    [_negative, _endless, _too_many, _too_much, _of_another_shape, _of_another_type, _one_more],
)
def test_cells_that_no_patients_can_give_are_refused(
    spoil: Callable[[dict[str, Cells]], None],
) -> None:
    statistics = said()
    cells = dict(statistics.cells)
    spoil(cells)
    content = pack_statistics(SiteStatistics("north", STUDY.digest, 20, cells))
    with pytest.raises(RunError, match="north"):
        unpack_statistics(content, STUDY)


def test_statistics_of_another_study_and_what_are_none_are_refused() -> None:
    other = ward_study(statistics={"intensity_bins": 17})
    with pytest.raises(RunError, match="not those of this study"):
        unpack_statistics(pack_statistics(said()), other)
    with pytest.raises(RunError, match="cannot be read"):
        unpack_statistics(RecordDict({"header": ConfigRecord({"site": "x"})}), STUDY)
    with pytest.raises(RunError, match="cannot be read"):
        asked_digest(RecordDict())
