"""A site's metric of a round is in the history, or the reason is: whatever the sites do."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Error
from tests.support.scripted_sites import (
    Reply,
    ScriptedSite,
    federate,
    measured,
    study_with,
    wrong_shape,
)

from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import Refusal, SiteUpdate, pack_refusal
from wardround.common.metrics.sums import SiteValues
from wardround.server.checkpoints.history import RoundRecord
from wardround.server.checkpoints.lost_sites import lost_words, missed_rounds
from wardround.server.rounds.evaluation import UNSAID

Doing = Callable[[SiteUpdate], SiteUpdate | Reply]
SITES, ROUNDS = ("a", "b", "c"), 4


def _not_a_number(update: SiteUpdate) -> SiteUpdate:
    name = next(iter(update.parameters))
    update.parameters[name] = torch.full_like(update.parameters[name], float("nan"))
    return update


DOINGS: Mapping[str, Doing] = {
    "tables": lambda update: update,
    "values": lambda update: replace(update, metrics=SiteValues(10, {"loss": 0.5})),
    "no value": lambda update: replace(update, metrics=SiteValues(10, {"accuracy": 0.5})),
    "nothing": lambda update: replace(update, metrics=None),
    "refusal": lambda update: pack_refusal(Refusal(update.site, "budget")),
    "error": lambda update: Error(2, "KeyError"),
    "wrong shape": lambda update: wrong_shape(Instruction("", "", 1, {}), update),
    "not a number": _not_a_number,
    "another round": lambda update: replace(update, round=update.round + 7),
}
TRAINS = ("tables", "values", "no value", "nothing")


def _script(plan: Mapping[int, str]) -> Callable[[Instruction, SiteUpdate], SiteUpdate | Reply]:
    return lambda instruction, update: DOINGS[plan[instruction.round]](update)


def _unexplained(record: RoundRecord) -> set[str]:
    """Return the sites of which a round says neither the metric nor why not."""
    said = {
        one.site
        for one in record.measurements
        if any(value.metric == "loss" and not value.class_name for value in one.values)
    }
    return {*SITES} - said - {one.site for one in record.refusals}


@pytest.mark.parametrize("seed", range(12))
def test_every_sites_metric_of_every_round_or_its_reason_is_in_the_history(
    tmp_path: Path, seed: int
) -> None:
    drawn = random.Random(seed)
    plans = {
        site: {number: drawn.choice([*DOINGS]) for number in range(1, ROUNDS + 1)} for site in SITES
    }
    plans["a"] = {number: drawn.choice(TRAINS) for number in range(1, ROUNDS + 1)}  # the quorum
    study = study_with(rounds=ROUNDS, minimum_sites=1)
    sites = [ScriptedSite(site, study, disturb=_script(plan)) for site, plan in plans.items()]
    _, _, history = federate(study, tmp_path, *sites)
    assert len(history) == ROUNDS + 1
    for record in history:
        assert not _unexplained(record), (record.round, plans)
        for one in record.refusals:
            assert one.reason
    missed = missed_rounds([(one.site, one.asked) for one in r.refusals] for r in history)
    expected = {
        site: sum(doing not in TRAINS for doing in plan.values()) for site, plan in plans.items()
    }
    assert missed == {site: count for site, count in expected.items() if count}


def test_a_site_that_says_no_metric_is_named_with_the_split_that_it_was_asked_for(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=1, minimum_sites=1)
    plan = {1: "nothing"}
    sites = [ScriptedSite("a", study), ScriptedSite("b", study, disturb=_script(plan))]
    _, _, (first, _) = federate(study, tmp_path, *sites)
    assert [(one.site, one.asked, one.reason) for one in first.refusals] == [
        ("b", "validation", UNSAID)
    ]
    assert {site.site for site in first.sites} == {"a", "b"}
    assert measured(study, 4, 0.5).examinations == 4


@pytest.mark.parametrize(
    ("without", "missed", "words"),
    [
        ((), {}, ""),
        (("south",), {"south": 10}, "without south"),
        ((), {"west": 3}, "with rounds of 10 missed by west (3)"),
        (("south",), {"south": 10, "west": 3}, "without south and with rounds of 10 missed by"),
        (tuple("abcdefgh"), {}, "without a, b, c, d, e, f and 2 more"),
    ],
)
def test_who_is_lost_is_said_in_one_line(
    without: tuple[str, ...], missed: dict[str, int], words: str
) -> None:
    said = lost_words(without, missed, 10)
    assert said.startswith(words)
    assert bool(said) == bool(words)
