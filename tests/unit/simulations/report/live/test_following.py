"""What events and rounds make of what is known of a simulation."""

import math
from dataclasses import replace

import pytest

from wardround.common.metrics.task_sums import MetricValue
from wardround.server.checkpoints.history import (
    Measurement,
    RefusalRecord,
    RoundRecord,
    SiteRecord,
)
from wardround.simulations.report.live.following import with_event, with_records
from wardround.simulations.report.live.state import MOST_HAPPENINGS, RunState
from wardround.simulations.run_files.events import (
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
)


def record(number: int, value: float = 0.5, *sites: str, without: str = "") -> RoundRecord:
    return RoundRecord(
        round=number,
        measured_round=number - 1,
        seconds=2.0,
        sites=tuple(SiteRecord(site, 10, 4, 1.5, 100, 200, 0.25) for site in sites),
        refusals=(RefusalRecord(without, "too late"),) if without else (),
        measurements=(
            Measurement("all sites", "validation", (MetricValue("auroc", "", value, 9),)),
        ),
    )


def begun() -> RunState:
    return RunState(study="x", metric="auroc", rounds_planned=4, standing="running")


def test_a_stage_begins_goes_on_and_ends() -> None:
    state = with_event(begun(), StageStarted("federated", 4), 10.0)
    assert [one.title for one in state.running] == ["training together"]
    state = with_event(state, RoundDone("federated", 1, 4, "auroc", math.nan, 8, 2.0), 12.0)
    assert (state.stages[0].done, state.stages[0].rounds) == (1, 4)
    state = with_event(state, StageFinished("federated"), 13.0)
    assert state.running == ()
    assert state.stages[0].ended == 13.0


def test_the_end_of_a_stage_whose_beginning_was_not_heard_makes_it_known() -> None:
    state = with_event(begun(), StageFinished("pooled"), 1.0)
    assert state.stages[0].title == "training on pooled data"


def test_only_the_last_hundred_happenings_are_kept_and_all_are_counted() -> None:
    state = begun()
    for number in range(MOST_HAPPENINGS + 7):
        state = with_event(state, SiteFailed("federated", number, "north", "late"), float(number))
    assert len(state.happenings) == MOST_HAPPENINGS
    assert state.happened == MOST_HAPPENINGS + 7
    assert state.happenings[-1].is_trouble


def test_what_a_site_says_as_its_reason_cannot_hide_or_turn_words() -> None:
    state = with_event(begun(), SiteFailed("federated", 1, "n\u202eo", "a\nb\x1b[2J"), 0.0)
    assert state.happenings[0].words.isprintable()


def test_rounds_tell_of_each_site_its_part_and_why_it_was_left_out() -> None:
    records = [
        (record(1, 0.5, "north", "south"), 100.0),
        (record(2, 0.6, "north", without="south"), 110.0),
    ]
    state = with_records(begun(), records)
    north, south = state.sites
    assert (north.rounds, north.last, north.updates, north.bytes_up) == (2, 2, 8, 400)
    assert (south.rounds, south.last, south.left_out) == (1, 1, (2, "too late"))
    assert state.values["all sites"] == {0: 0.5, 1: 0.6}
    assert state.losses["south"] == {1: 0.25}
    assert state.rounds[1].left_out == ("south",)


def test_rounds_are_expected_to_end_as_fast_as_the_last_ones_went() -> None:
    state = with_records(
        begun(), [(record(1, 0.5, "north"), 100.0), (record(2, 0.6, "north"), 102.0)]
    )
    assert state.rounds_end == pytest.approx(102.0 + 2 * 2.0)
    assert math.isnan(replace(state, standing="interrupted").rounds_end)
    assert math.isnan(begun().rounds_end)


def test_the_closing_record_measures_the_last_model_and_is_no_round() -> None:
    state = with_records(begun(), [(record(1, 0.5, "north"), 1.0), (record(2, 0.7), 2.0)])
    assert len(state.rounds) == 1
    assert state.values["all sites"] == {0: 0.5, 1: 0.7}
