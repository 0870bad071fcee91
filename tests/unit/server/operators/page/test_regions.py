"""The parts of the operators' page: what is said of server, runs and sites, and how safely."""

import time
from dataclasses import replace

import pytest
from tests.support.studies.tiny_study import SMALLEST_STUDY

from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.operators.messages import (
    Refusal,
    RoundReport,
    RunDetails,
    RunEvent,
    RunRecord,
    RunSummary,
    ServerSummary,
    SitePart,
    SiteSummary,
    SiteValue,
)
from wardround.server.operators.page.course import course_part, events_part, now_part
from wardround.server.operators.page.forms import forms, run_button
from wardround.server.operators.page.lookout import ShownRun, Sight
from wardround.server.operators.page.overview import runs_part, server_part, sites_part
from wardround.server.operators.page.standing import Doing, doing
from wardround.server.operators.report.sections import privacy_sentences

FORGED = "<script>alert(1)</script>\"'><img src=//evil.example/x>\x1b[2J\u202e"


def a_run(state: str = "running", **changes: object) -> RunSummary:
    run = RunSummary("lung-1", "lung", "d" * 64, state, "", 2, 9, "auroc", 0.75, 0.0, 1.0, None)
    return replace(run, **changes)


def a_site(name: str = "north", **changes: object) -> SiteSummary:
    site = SiteSummary(name, 0.0, time.time() + 1e6, False, 1.0, True, wardround="0.1.0")
    return replace(site, **changes)


def a_record(run: RunSummary, sites: tuple[str, ...] = ("north",), name: str = "") -> RunRecord:
    refusal = Refusal("south", name or "its policy allows nothing", "training", 1)
    history = (
        RoundReport(1, 0, 1.5, 0.5, ("north", "south"), ()),
        RoundReport(2, 1, 1.25, 0.75, ("north",), (refusal,)),
    )
    details = RunDetails(
        run,
        sites,
        1,
        "a round waits 9 s",
        history,
        (refusal,),
        (EvidenceRow("intervals", name or "all sites", "b", "auroc", 0.75, 0.7, 0.8),),
    )
    parts = tuple(SitePart(name or "north", n, 0.5, 2_000_000, 3_000_000) for n in (1, 2))
    values = tuple(
        SiteValue("all sites", n, "validation", value) for n, value in ((0, 0.5), (1, 0.75))
    )
    return RunRecord(details, SMALLEST_STUDY, "0.1.0", parts, values)


def test_the_server_says_who_is_there_and_what_troubles_it() -> None:
    server = ServerSummary("Lung", "0.1.0", "fl:8443", 0.0, True, 2, 2, {}, None)
    sites = (a_site(), a_site("south", lost=5.0), a_site("west", connected=False))
    said = server_part(Sight("no server answers", server, (), sites))
    assert "no server answers" in said
    assert "1 of 3 connected" in said
    assert "Asking the server" in server_part(Sight())


def test_runs_stand_under_way_queued_and_ended_with_their_reasons() -> None:
    runs = (
        a_run(run="a-1"),
        a_run("queued", run="b-2", message="waits behind a-1"),
        a_run("finished", run="c-3", without=("south",), ended=9.0),
        a_run("failed", run="d-4", message="too few sites", ended=10.0),
    )
    said = runs_part(runs, may_act=False)
    places = [said.index(one) for one in ("a-1<", "b-2<", "d-4<", "c-3<")]
    assert places == sorted(places)
    assert "waits behind a-1" in said
    assert "without south" in said
    assert "too few sites" in said
    assert "<form" not in said


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("queued", "stop"),
        ("running", "stop"),
        ("waiting for sites", "stop"),
        ("stopping", ""),
        ("stopped", "resume"),
        ("failed", "resume"),
        ("finished", ""),
    ],
)
def test_a_run_has_the_button_of_what_can_be_done_with_it(state: str, action: str) -> None:
    said = run_button(a_run(state))
    assert (f'data-action="{action}"' in said) if action else not said


def test_only_who_is_at_the_servers_folder_has_the_form_that_invites() -> None:
    assert 'data-action="invite"' in forms(may_invite=True)
    assert 'data-action="invite"' not in forms(may_invite=False)


def test_ids_of_forms_are_none_of_the_regions() -> None:
    from wardround.server.operators.page.operators_page import REGIONS

    text = forms(may_invite=True)
    assert all(f'id="{region.name}"' not in text for region in REGIONS)


def test_a_site_is_connected_lost_or_away() -> None:
    sites = (a_site("east"), a_site("north", lost=5.0), a_site("south", connected=False))
    said = sites_part(Sight(sites=sites))
    words = [part.split("<")[0] for part in said.split('<td class="text"><span class="')]
    assert [word.partition(">")[2] for word in words[1::2]] == ["connected", "lost", "away"]
    assert "its connection broke at 1970-01-01 00:00" in said
    assert "0.1.0" in said


def test_a_revoked_and_an_expired_certificate_are_called_so() -> None:
    assert "revoked" in sites_part(Sight(sites=(a_site(revoked=True, expires=None),)))
    assert "expired" in sites_part(Sight(sites=(a_site(expires=5.0),)))


def test_what_a_site_does_follows_from_the_runs_under_way() -> None:
    run = a_run()
    shown = [(run, a_record(run))]
    assert doing(a_site(), shown) == Doing("training", "lung-1, round 3 of 9")
    assert doing(a_site("south"), shown) == Doing(
        "left out", "lung-1, round 2: its policy allows nothing"
    )
    assert doing(a_site("west"), shown) == Doing("idle")
    assert doing(a_site("west", connected=False), shown) == Doing("away")
    assert doing(a_site(lost=5.0), shown).word == "cut off"
    assert doing(a_site(connected=False), shown).word == "cut off"
    late = a_run(message="round 3 waits for north: no answer yet, for 5 s more at the most")
    assert doing(a_site(), [(late, a_record(late))]).word == "late"
    waiting = a_run(
        "waiting for sites",
        message="waiting for sites: 0 of 2 are ready (north is not connected; "
        "south has not approved the study)",
    )
    assert doing(a_site("south"), [(waiting, None)]) == Doing(
        "waited for", "lung-1: it has not approved the study"
    )
    ended = a_run("finished")
    assert doing(a_site(), [(ended, a_record(ended))]) == Doing("idle")


def test_the_course_has_metric_intervals_bytes_seconds_and_privacy() -> None:
    run = a_run()
    said = course_part([ShownRun(run, a_record(run), ())], privacy_sentences)
    for words in ("0.7500", "0.700 to 0.800", "6.00 MB", "4.00 MB", "promises no differential"):
        assert words in said
    assert "<svg" in said
    now = now_part([ShownRun(run, a_record(run), ())])
    assert "round 2 of 9" in now
    assert "a round waits 9 s" in now


def test_events_stand_the_last_first_and_are_bounded() -> None:
    events = tuple(
        RunEvent("round", "running", round=n, rounds=200, seconds=1.0, time=float(n))
        for n in range(1, 121)
    )
    said = events_part([ShownRun(a_run(), None, events)])
    assert said.index("round 120/200") < said.index("round 119/200")
    assert said.count("<li>") == 60
    assert "Nothing has happened yet" in events_part([])


def test_no_text_of_a_site_a_study_or_a_server_acts_on_the_page() -> None:
    run = a_run(
        FORGED, run=FORGED, study=FORGED, digest=FORGED, message=FORGED, metric=FORGED,
        without=(FORGED,),
    )  # fmt: skip
    events = (RunEvent("refusal", FORGED, FORGED, round=1, site=FORGED, sites=(FORGED,)),)
    shown = (ShownRun(run, a_record(run, (FORGED,), FORGED), events),)
    server = ServerSummary(FORGED, FORGED, FORGED, 0.0, False, 1, 1, {}, None)
    sites = (a_site(FORGED, wardround=FORGED),)
    sight = Sight(FORGED, server, (run,), sites, shown)
    parts = (
        server_part(sight),
        runs_part(sight.runs, may_act=True),
        sites_part(sight),
        now_part(shown),
        course_part(shown, lambda _: (FORGED,)),
        events_part(shown),
        run_button(replace(run, state="stopped")),
    )
    for part in parts:
        assert "<script" not in part
        assert "<img" not in part
        assert "\x1b" not in part
        assert "\u202e" not in part


def test_a_long_course_is_cut_and_says_so() -> None:
    run = a_run(round=400, rounds=900)
    record = a_record(run)
    rounds = tuple(RoundReport(n, n - 1, 1.0, 0.5, ("north",), ()) for n in range(1, 401))
    long = replace(record, details=replace(record.details, history=rounds))
    said = course_part([ShownRun(run, long, ())], lambda _: ())
    assert "Of 400 rounds the last 100 are drawn here" in said
    assert len(said) < 60_000
