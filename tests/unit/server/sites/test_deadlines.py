"""How long a round waits: as the study says, else as a server's rounds have taught."""

import math

import pytest

from wardround.server.checkpoints.history import RefusalRecord, RoundRecord, SiteRecord
from wardround.server.sites.deadlines import Deadlines, Limits
from wardround.server.sites.exchange import ABSENCE_SECONDS, NO_ANSWER, NOT_CONNECTED

LIMITS = Limits(first_seconds=1000.0, least_seconds=50.0, absence_seconds=7.0)


def a_round(seconds: float, *reasons: str) -> RoundRecord:
    refusals = tuple(RefusalRecord("south", reason) for reason in reasons)
    return RoundRecord(1, 0, seconds, (SiteRecord("north", 1, 1, 0.1, 1, 1, 0.5),), refusals)


def test_a_simulation_waits_as_its_study_says_or_without_end() -> None:
    assert Deadlines().deadline_seconds is None
    assert Deadlines().absence_seconds == ABSENCE_SECONDS
    assert (Deadlines(30.0).deadline_seconds, Deadlines(30.0).absence_seconds) == (30.0, math.inf)


def test_a_study_that_sets_a_deadline_is_not_overruled() -> None:
    deadlines = Deadlines(30.0, LIMITS)
    deadlines.learn([a_round(900.0)])
    assert (deadlines.deadline_seconds, deadlines.absence_seconds) == (30.0, math.inf)
    assert "the study's deadline" in deadlines.words()


@pytest.mark.parametrize(("longest", "deadline"), [(2.0, 50.0), (20.0, 80.0), (400.0, 1000.0)])
def test_without_one_it_is_four_times_the_longest_round_within_limits(
    longest: float, deadline: float
) -> None:
    deadlines = Deadlines(None, LIMITS)
    assert (deadlines.deadline_seconds, deadlines.absence_seconds) == (1000.0, 7.0)
    assert "until a round is complete" in deadlines.words()
    deadlines.learn([a_round(longest), a_round(1.0, "budget: it would spend more")])
    assert deadlines.deadline_seconds == deadline
    assert f"waits {deadline:.0f} s" in deadlines.words()


@pytest.mark.parametrize("reason", [NO_ANSWER, NOT_CONNECTED])
def test_a_round_that_waited_in_vain_is_no_measure(reason: str) -> None:
    deadlines = Deadlines(None, LIMITS)
    deadlines.learn([a_round(20.0), a_round(80.0, reason), RoundRecord(3, 2, 90.0)])
    assert deadlines.deadline_seconds == 80.0


def test_a_site_that_is_slow_and_not_stuck_is_given_its_time() -> None:
    deadlines = Deadlines(None, LIMITS)
    deadlines.learn([a_round(20.0)])
    deadlines.learn_late(100.0)
    assert deadlines.deadline_seconds == 400.0
