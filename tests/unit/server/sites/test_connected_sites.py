"""Who takes part from round to round, at a server whose sites come and go."""

import time

import pytest
from tests.support.hospitals.town import (
    SOUTH,
    Reply,
    Town,
    TownGrid,
    make_study,
    refuses,
    says,
)

from wardround.common.study.study import Study
from wardround.server.sites import connected_sites as module
from wardround.server.sites import readiness as asking
from wardround.server.sites.connected_sites import Admittance, ConnectedSites, SiteChange
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.readiness import ReadinessPoll
from wardround.server.sites.waiting import SiteWait, Terms

MEMBERS = ("east", "north", "south")
EAST = says(site="east")


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(asking, "_FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(asking, "_MENDING_SECONDS", 0.0)


class Run:
    """A run that began with the sites that were connected."""

    def __init__(
        self,
        east: list[Reply],
        is_open: bool = True,
        named: tuple[str, ...] = (),
        study: Study | None = None,
    ) -> None:
        sites = {"north": [says()], "south": [SOUTH], "east": east}
        self.town = Town(study or make_study(), sites, {"north", "south"})
        poll = ReadinessPoll(TownGrid(self.town), self.town.names, self.town.study)
        terms = Terms(wanted=named, gathering_seconds=0.0)
        gathered = SiteWait(poll, lambda: MEMBERS, self.town.study, terms, lambda _: None).gather()
        self.told: list[SiteChange] = []
        admittance = Admittance(named, lambda: MEMBERS, is_open)
        self.sites = ConnectedSites(poll, admittance, Deadlines(), gathered, self.told.append)

    def round(self, number: int) -> list[str]:
        return [node.site for node in self.sites.of_round(number)]

    def events(self) -> list[tuple[str, str]]:
        return [(change.event, change.site) for change in self.told]


def test_a_site_that_comes_later_takes_part_from_the_next_round_on() -> None:
    run = Run([EAST])
    assert run.round(1) == ["north", "south"]
    assert run.sites.absent() == {"east": "is not connected"}
    run.town.connected.add("east")
    assert run.round(2) == ["east", "north", "south"]
    assert run.sites.absent() == {}
    assert run.events() == [("site joined", "east")]
    assert run.told[0].sites == run.told[0].present == ("east", "north", "south")


def test_a_site_that_approves_later_takes_part_from_then_on() -> None:
    run = Run([refuses("approval"), refuses("approval"), EAST])
    run.town.connected.add("east")
    assert run.round(1) == ["north", "south"]
    assert run.sites.absent() == {"east": "has not approved the study"}
    assert run.round(2) == ["north", "south"]
    assert run.round(3) == ["east", "north", "south"]


def test_a_site_that_is_mended_takes_part_and_its_reason_is_told_once() -> None:
    run = Run([refuses("data"), refuses("data"), EAST])
    run.town.connected.add("east")
    for number in (1, 2):
        assert run.round(number) == ["north", "south"]
        assert "cannot use its data" in run.sites.absent()["east"]
    assert run.round(3) == ["east", "north", "south"]
    assert run.events() == [("site left out", "east"), ("site joined", "east")]


def test_a_site_that_did_not_answer_is_left_out_until_it_says_that_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run([EAST])
    run.town.sites["north"] = [lambda _: None]
    run.sites.miss("north", 1, is_stuck=True)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 30.0)
    began = time.monotonic()
    assert run.round(2) == ["south"]
    assert time.monotonic() - began < 5, "a stuck site is not waited for again"
    assert run.sites.absent()["north"] == "has not answered since round 1"
    run.town.sites["north"] = [says()]
    assert run.round(3) == ["north", "south"]
    assert run.events() == [("site missed", "north"), ("site back", "north")]


def test_a_site_whose_late_reply_came_is_back_without_being_asked() -> None:
    run = Run([EAST])
    asked = run.town.asked["north"]
    run.sites.miss("north", 1, is_stuck=True)
    run.sites.note("north")
    assert run.round(2) == ["north", "south"]
    assert run.town.asked["north"] == asked
    run.sites.note("east")
    assert run.round(3) == ["north", "south"], "who was not missed cannot be heard of"


def test_a_strategy_for_the_sites_of_the_beginning_takes_no_other_and_has_them_back() -> None:
    run = Run([EAST], is_open=False)
    run.town.connected.add("east")
    assert run.round(1) == ["north", "south"]
    assert "was not there when the run began" in run.sites.absent()["east"]
    run.sites.miss("south", 1, is_stuck=False)
    assert run.told[-1].present == ("north", "south"), "after an interruption it is waited for"
    assert run.round(2) == ["north", "south"]


def test_a_run_for_named_sites_takes_no_other() -> None:
    run = Run([EAST], named=("north", "south"))
    run.town.connected.add("east")
    assert run.round(1) == ["north", "south"]
    assert run.sites.absent() == {}


def test_a_newcomer_with_another_frozen_network_is_left_out_and_the_run_goes_on() -> None:
    plain = make_study()
    model = plain.model.model_copy(update={"adapter_rank": 4})
    run = Run([says(site="east", base=5.0)], study=plain.model_copy(update={"model": model}))
    run.town.connected.add("east")
    assert run.round(1) == ["north", "south"]
    assert "do not hold the same frozen network" in run.sites.absent()["east"]
