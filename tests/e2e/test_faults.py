"""Two faults of the table, done to real processes; 'make faults' does them all."""

from collections.abc import Iterator

import pytest
from tests.faults.invariants import check_invariants
from tests.faults.stage import Stage
from tests.faults.table import FAULTS
from tests.faults.table.fault import Fault

pytest.importorskip("psutil")
pytestmark = pytest.mark.slow
CHOSEN = {"2": (), "7": pytest.mark.long}  # a daemon is killed in test_site_daemon.py, too


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("f"))
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(one, marks=CHOSEN[one.number], id=one.name)
        for one in FAULTS
        if one.number in CHOSEN
    ],
)
def test_a_fault_of_the_table_is_survived(stage: Stage, fault: Fault) -> None:
    stage.restore()
    (stage.plans / "calls.log").touch()
    check_invariants(stage, fault.act(stage))
