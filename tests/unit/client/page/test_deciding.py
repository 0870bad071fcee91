"""Reading a study and deciding on it from the page: the very checks of the command line.

Each step is a process that imports torch and asks the accountant: 10 s on an idle machine.
"""

from pathlib import Path

import pytest
from tests.support.stage import wait_until
from tests.unit.client.page.conftest import PATIENT

from wardround.client.page.actions import actions_of
from wardround.client.page.errands import Errands
from wardround.client.policy.approvals import read_decisions
from wardround.common.errors import WardroundError
from wardround.common.study.study import Study

pytestmark = pytest.mark.long
PATIENCE_SECONDS = 200.0


def wait_for(errands: Errands, name: str) -> None:
    def is_done() -> bool:
        errand = errands.last(name)
        return errand is not None and not errand.is_running

    wait_until(is_done, PATIENCE_SECONDS)


def read(site: Path, study: Study, errands: Errands) -> dict[str, object]:
    actions_of(errands, may_decide=True)["explain"]({"study": study.digest}, "local")
    wait_until(
        lambda: not (errands.last("explain") or pytest.fail("none")).is_running, PATIENCE_SECONDS
    )
    errand = errands.last("explain")
    assert errand is not None
    assert errand.said is not None, errand.error
    return errand.said


def test_a_study_is_read_approved_with_the_terms_that_were_read_and_rejected(
    site: Path, private_study: Study
) -> None:
    errands = Errands(site)
    actions, study = actions_of(errands, may_decide=True), {"study": private_study.digest}
    said = read(site, private_study, errands)
    assert str(said["spending"]).startswith("This spends epsilon 7.99 of 8: ")
    assert PATIENT not in str(said)

    with pytest.raises(WardroundError, match="has changed since you read it"):
        actions["approve"]({**study, "mark": "0" * 64}, "local")
    assert read_decisions(site) == ()

    told = actions["approve"]({**study, "mark": str(said["mark"])}, "local")
    (approved,) = read_decisions(site)
    assert "has approved" in told.sentence
    assert list(approved.terms) == said["terms"]

    told = actions["reject"](study, "local")
    assert "has rejected" in told.sentence
    assert read_decisions(site)[-1].verdict == "rejected"


def test_an_unknown_study_is_refused_in_the_words_of_the_command_line(site: Path) -> None:
    with pytest.raises(WardroundError, match="this site does not hold the study"):
        actions_of(Errands(site), may_decide=True)["approve"]({"study": "a" * 64}, "local")


def test_the_data_are_looked_at_once_at_a_time_and_name_no_patient(site: Path) -> None:
    errands = Errands(site)
    check = actions_of(errands, may_decide=False)["check"]
    check({}, "local")
    with pytest.raises(WardroundError, match="being done already"):
        check({}, "local")
    wait_until(
        lambda: not (errands.last("check") or pytest.fail("none")).is_running, PATIENCE_SECONDS
    )
    found = errands.last("check")
    assert found is not None
    assert found.said is not None, found.error
    assert "60 examinations of 60 patients" in str(found.said)
    assert PATIENT not in str(found.said)
