"""A study waits for its sites: for those that are away, and for those that have to approve it."""

import math
import time
from collections.abc import Callable

import pytest
from flwr.app import RecordDict
from hypothesis import HealthCheck, given, settings
from tests.support.hospitals.town import SOUTH, Reply, Town, TownGrid, make_study, refuses, says
from tests.support.hostile.messages import Mutation, attacks

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteInfo
from wardround.common.study.study import Study
from wardround.server.sites import readiness as poll
from wardround.server.sites import waiting
from wardround.server.sites.readiness import ReadinessPoll
from wardround.server.sites.site_info import outvoted
from wardround.server.sites.waiting import SiteWait, Terms, Turn

BASES = {"north": 2.5, "east": 9.0, "south": 2.5001}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(poll, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(poll, "_LONGEST_PAUSE_SECONDS", 0.02)


def gather(
    town: Town,
    terms: Terms | None = None,
    members: tuple[str, ...] = (),
    hears: Callable[[str], None] = lambda _: None,
    turn: Turn | None = None,
) -> list[str]:
    poll = ReadinessPoll(TownGrid(town), town.names, town.study)
    wait = SiteWait(poll, lambda: members, town.study, terms or Terms(), hears, turn or Turn())
    found = wait.gather()
    return [f"{node.site}:{node.examinations}" for node in found[0]]


def two(north: list[Reply], south: list[Reply], minimum_sites: int = 2) -> Town:
    study = make_study(minimum_sites)
    return Town(study, {"north": north, "south": south}, {"north", "south"})


def test_sites_that_are_there_and_ready_are_taken_in_the_order_of_their_names() -> None:
    assert gather(two([says()], [says(site="south", examinations=7)])) == ["north:40", "south:7"]


def test_a_site_that_has_not_approved_the_study_is_asked_until_it_has() -> None:
    heard: list[str] = []
    town = two([refuses("approval"), refuses("approval"), refuses("approval"), says()], [SOUTH])
    assert gather(town, hears=heard.append) == ["north:40", "south:40"]
    assert town.asked["north"] == 4
    assert (
        "waiting for sites: 1 of 2 are ready, and 2 needed (north has not approved the study)"
        in heard
    )


def test_a_site_that_never_approves_ends_the_waiting_with_its_name() -> None:
    town = two([refuses("approval")], [SOUTH])
    with pytest.raises(RunError, match=r"needs 2 sites and 1 .*north has not approved the study"):
        gather(town, Terms(approval_timeout_seconds=0.2))


def test_with_a_quorum_a_site_that_never_approves_is_waited_for_a_moment() -> None:
    town = two([refuses("approval")], [SOUTH], minimum_sites=1)
    assert gather(town, Terms(gathering_seconds=0.1)) == ["south:40"]
    town = two([refuses("approval"), refuses("approval"), says()], [SOUTH], minimum_sites=1)
    assert gather(town, Terms()) == ["north:40", "south:40"]


def test_a_site_that_still_reads_its_data_is_waited_for_longer_than_one_that_is_away() -> None:
    town = two([lambda _: None], [SOUTH], minimum_sites=1)
    began = time.monotonic()
    assert gather(town, Terms(gathering_seconds=0.0, answer_seconds=0.3)) == ["south:40"]
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("members", [(), ("north", "south")])
def test_a_study_that_every_site_has_rejected_ends_at_once_and_says_so(
    members: tuple[str, ...],
) -> None:
    town = two([refuses("rejected")], [refuses("policy")], minimum_sites=1)
    began = time.monotonic()
    with pytest.raises(
        RunError, match=r"north has rejected the study; south has a policy that does not allow"
    ):
        gather(town, members=members)
    assert time.monotonic() - began < 5


def test_a_study_that_has_its_sites_waits_for_its_turn_and_says_so() -> None:
    heard: list[str] = []
    answers = iter([False, False, True])
    turn = Turn(lambda: next(answers), "its turn comes")
    town = two([says()], [SOUTH])
    assert gather(town, hears=heard.append, turn=turn) == ["north:40", "south:40"]
    assert heard.count("its turn comes") == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refuses("budget"), "north has no privacy budget left"),
        (refuses("data"), "north cannot use its data"),
        (refuses("policy"), "north has a policy that does not allow the study"),
        (refuses("rejected"), "north has rejected the study"),
        (refuses("guard"), r"north refuses \(guard\)"),
        (says(wardround="0.0.1"), r"north runs wardround 0\.0\.1, the server"),
        (says(site="someone"), "it calls itself 'someone'"),
        (lambda _: RecordDict(), "site-info cannot be read"),
    ],
)
def test_a_site_that_cannot_take_part_is_not_waited_for(reply: Reply, reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        gather(two([reply], [SOUTH]))
    assert gather(two([reply], [SOUTH], minimum_sites=1)) == ["south:40"]


@pytest.mark.parametrize("base", [5.0, -1e99, math.nan, math.inf])
def test_a_site_that_speaks_of_another_frozen_network_keeps_no_study_from_beginning(
    base: float,
) -> None:
    town = two([says(base=base)], [SOUTH], minimum_sites=1)
    assert gather(town) == ["south:40"]


def test_of_adapters_on_different_networks_those_of_most_sites_train_together() -> None:
    sites = [SiteInfo(site, "1", "d", 1, (), base) for site, base in BASES.items()]
    assert outvoted(sites) == ("east",)
    assert outvoted(sites[:2]) == (), "one against one: nothing says who is right"


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(attack=attacks)
def test_whatever_a_site_says_of_itself_the_others_begin(attack: list[Mutation]) -> None:
    def attacked(study: Study) -> RecordDict | None:
        content = says()(study)
        for change in attack:
            change(content)
        return content

    town = two([attacked], [SOUTH], minimum_sites=1)
    assert "south:40" in gather(town, Terms(approval_timeout_seconds=0.0))


def test_a_member_that_is_away_is_waited_for_a_moment_beyond_the_quorum() -> None:
    town = two([says()], [SOUTH], minimum_sites=1)
    town.connected = {"south"}
    heard: list[str] = []

    def note(words: str) -> None:
        heard.append(words)
        town.connected.add("north")

    assert gather(town, members=("north", "south"), hears=note) == ["north:40", "south:40"]
    assert heard[0] == "waiting for sites: 1 of 2 are ready, and 1 needed (north is not connected)"
    town.connected = {"south"}
    terms = Terms(gathering_seconds=0.1)
    assert gather(town, terms, members=("north", "south")) == ["south:40"]


def test_a_study_for_named_sites_takes_no_other() -> None:
    town = two([says()], [SOUTH], minimum_sites=1)
    assert gather(town, Terms(wanted=("north",))) == ["north:40"]
    assert "south" not in town.asked
