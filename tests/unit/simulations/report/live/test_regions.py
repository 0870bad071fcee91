"""The parts of a simulation's page."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from tests.unit.simulations.report.live.test_following import begun, record

from wardround.simulations.report.live.following import with_event, with_records
from wardround.simulations.report.live.regions import REGIONS, regions_of, summary_of
from wardround.simulations.report.live.state import Outcome, RunState, Series
from wardround.simulations.run_files.events import (
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
)

HOSTILE = '<script>alert(1)</script><img src=x onerror="y">'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name == "style" or name.startswith("on")]


def tags_of(parts: dict[str, str]) -> set[str]:
    found = Tags()
    found.feed("".join(parts.values()))
    return found.tags


def running() -> RunState:
    state = with_event(begun(), StageStarted("federated", 4), 10.0)
    records = [
        (record(1, 0.5, "north", "south"), 100.0),
        (record(2, 0.6, "north", without="south"), 110.0),
    ]
    state = with_event(state, RoundDone("federated", 2, 4, "auroc", 0.5, 8, 2.0), 110.0)
    return with_records(replace(state, known_sites=("north", "south", "west")), records)


def test_every_region_is_there_before_anything_is_known() -> None:
    parts = regions_of(RunState())
    assert parts.keys() == set(REGIONS)
    assert "begins" in parts["summary"]


def test_the_page_tells_rounds_sites_and_when_the_rounds_end() -> None:
    parts = regions_of(running())
    assert "2 of 4" in parts["now"]
    assert "rounds end about" in parts["now"]
    assert "left out" in parts["sites"]
    assert "round 2: too late" in parts["sites"]
    assert "was not asked" in parts["sites"]  # west
    assert parts["course"].count("<svg") >= 2
    assert "<caption>" in parts["rounds"]


def test_the_summary_changes_with_stages_and_tenths_and_not_with_every_round() -> None:
    state = with_event(begun(), StageStarted("federated", 100), 0.0)
    said = []
    for number in range(1, 101):
        event = RoundDone("federated", number, 100, "auroc", 0.5, 8, 0.1)
        state = with_event(state, event, float(number))
        said.append(summary_of(state))
    assert len(set(said)) == 11
    state = with_event(
        with_event(state, StageFinished("federated"), 1.0), StageStarted("test"), 2.0
    )
    assert summary_of(state) == "Testing every model on every site."


@pytest.mark.parametrize("ended", [False, True])
def test_hostile_names_and_reasons_stay_text(ended: bool) -> None:
    site = SiteFailed("federated", 1, HOSTILE, HOSTILE)
    state = with_event(replace(running(), study=HOSTILE, metric=HOSTILE), site, 3.0)
    hostile = with_records(state, [(record(3, 0.5, HOSTILE, without=f"{HOSTILE}2"), 120.0)])
    hostile = replace(
        hostile,
        privacy=(HOSTILE,),
        outcome=Outcome(HOSTILE, (HOSTILE,), "good", HOSTILE, ((HOSTILE,) * 6,), report=True),
    )
    parts = regions_of(hostile, has_ended=ended)
    series = regions_of(Series(HOSTILE, "running", ((HOSTILE, hostile),), HOSTILE), ended)
    for drawn in (parts, series):
        assert not tags_of(drawn) & {"script", "img"}


def test_a_finished_run_says_its_headline_with_intervals_and_links_its_report() -> None:
    line = ("north", "0.700", "0.800", "0.810", "+0.100 ± 0.050", "gained")
    outcome = Outcome(
        "All 2 hospitals gained.", ("It is so.",), "good", "AUROC", (line,), report=True
    )
    parts = regions_of(replace(running(), standing="finished", outcome=outcome), has_ended=True)
    assert "All 2 hospitals gained." in parts["summary"]
    assert "+0.100 ± 0.050" in parts["outcome"]
    assert 'href="files/report.html"' in parts["outcome"]
    assert "process has ended" in parts["now"]


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        ("nothing", "nothing was written"),
        ("interrupted", "was interrupted"),
        ("failed", "failed"),
    ],
)
def test_a_run_that_ended_otherwise_says_so(standing: str, words: str) -> None:
    assert words in summary_of(replace(running(), standing=standing))  # type: ignore[arg-type]


def test_a_finished_run_is_not_over_before_its_report_is_written() -> None:
    state = with_event(replace(running(), standing="finished"), StageStarted("report"), 1.0)
    assert not state.is_over
    assert "writing the report" in summary_of(state)


def test_a_series_has_a_row_a_run_and_looks_closely_at_one() -> None:
    runs = (("seed-0", replace(running(), standing="finished")), ("seed-1", running()))
    parts = regions_of(Series("x", "running", runs, "seed-1"))
    assert "1 of 2 runs" in parts["summary"]
    assert "seed-0" in parts["runs"]
    assert "<svg" in parts["course"]
