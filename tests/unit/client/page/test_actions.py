"""What may be done from the hospital's page, and what is refused at its door."""

from pathlib import Path

import pytest
from tests.support.stage import wait_until

from wardround.client.page.actions import actions_of
from wardround.client.page.errands import Errands
from wardround.common.errors import WardroundError
from wardround.common.study.study import Study


def test_deciding_is_no_action_of_a_page_for_reading(site: Path) -> None:
    assert not {"approve", "reject"} & actions_of(Errands(site), may_decide=False).keys()


@pytest.mark.parametrize("study", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_what_is_no_digest_is_refused_at_the_door(site: Path, study: str) -> None:
    errands = Errands(site)
    for name, action in actions_of(errands, may_decide=True).items():
        if name in ("explain", "approve", "reject"):
            with pytest.raises(WardroundError, match="no study was named"):
                action({"study": study}, "local")
    assert errands.last("explain") is None


def test_an_errand_whose_process_dies_says_so_and_can_be_tried_again(
    site: Path, private_study: Study
) -> None:
    errands = Errands(site)
    assert errands.start("explain", private_study.digest)
    errands.close()  # kills it
    wait_until(lambda: not (errands.last("explain") or pytest.fail("none")).is_running)
    found = errands.last("explain")
    assert found is not None
    assert "its process ended" in found.error
    assert errands.start("explain", private_study.digest)
    errands.close()
