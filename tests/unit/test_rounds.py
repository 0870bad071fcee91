"""The round loop over a Grid of ours: who is refused, when a run ends, which model is kept."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Error, Message, RecordDict

import wardround
from wardround.client.training.classification_counts import count_classification
from wardround.common.errors import DataError, RunError
from wardround.common.flower.records import configs_of
from wardround.common.metrics import MetricSums
from wardround.common.networks import build_network
from wardround.common.orders import Order, new_run, unpack_order
from wardround.common.parameters import Parameters, read_parameters
from wardround.common.study import Study, parse_study
from wardround.common.update import (
    Introduction,
    Refusal,
    SiteEvaluation,
    SiteUpdate,
    pack_evaluation,
    pack_introduction,
    pack_refusal,
    pack_update,
)
from wardround.server.app import make_server_app
from wardround.server.checkpoints import CheckpointStore, Commit
from wardround.server.history import RefusalRecord, RoundRecord, read_records
from wardround.server.measurement import as_measurements, is_better, overall
from wardround.server.rounds import RoundFinished
from wardround.simulations.engine import LocalGrid, site_contexts
from wardround.simulations.federation import run_federation
from wardround.simulations.measurements import refusal_notes

BASE = {
    "study": {"name": "rounds", "task": "classification"},
    "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "age"}]},
    "model": {"network": "mlp", "features": []},
    "federation": {"rounds": 3, "minimum_sites": 2},
    "evaluation": {"metric": "loss"},
}
Answer = RecordDict | Error


def study_with(**federation: object) -> Study:
    changes = {f"federation.{key}": value for key, value in federation.items()}
    return parse_study(BASE).with_changes(changes)


def measured(study: Study, patients: int, loss: float) -> MetricSums:
    """Return what a site measures on patients of both classes, with this mean loss."""
    truth = torch.arange(patients) % 2
    counted = count_classification(torch.zeros(patients, 2), truth, study)
    return MetricSums(patients, patients * loss, classification=counted)


class ScriptedSite:
    """A site that adds its step to every parameter, and measures what its script says.

    Attributes:
        losses: Validation loss of the model of round 0, 1, ...
        disturb: Changes an answer before it is sent.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        step: float = 1.0,
        losses: Iterable[float] = (),
        disturb: Callable[[Order, SiteUpdate], SiteUpdate | Answer] | None = None,
    ) -> None:
        self.name = name
        self.introduction = Introduction(name, wardround.__version__, study.digest, 10)
        self._study = study
        self._step = step
        self._losses = itertools.chain(losses, itertools.repeat(0.5))
        self._disturb = disturb

    def answer(self, message: Message) -> Answer:
        kind = message.metadata.message_type
        if kind.startswith("query"):
            return pack_introduction(self.introduction)
        order = unpack_order(message.content)
        metrics = measured(self._study, 4, next(self._losses))
        if kind == "evaluate":
            return pack_evaluation(
                SiteEvaluation(self.name, order.digest, order.round, metrics, 0.0, order.run)
            )
        trained = {name: value + self._step for name, value in order.parameters.items()}
        update = SiteUpdate(
            self.name,
            order.digest,
            order.round,
            order.attempt,
            trained,
            10,
            1,
            0.1,
            0.2,
            metrics,
            run=order.run,
        )
        changed = self._disturb(order, update) if self._disturb else update
        return pack_update(changed) if isinstance(changed, SiteUpdate) else changed


class ScriptedGrid(LocalGrid):
    """A Grid whose sites are scripts."""

    def __init__(self, sites: Iterable[ScriptedSite]) -> None:
        self.sites = list(sites)
        folders = [Path(f"site-{number}") for number in range(len(self.sites))]
        super().__init__(site_contexts(folders, "", "cpu", 1), 1)
        self._site_of = dict(zip(self._contexts, self.sites, strict=True))
        self._waiting: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            self._waiting[self._number(message)] = message
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            message = self._waiting.pop(message_id)
            answer = self._site_of[message.metadata.dst_node_id].answer(message)
            yield Message(answer, reply_to=message)


def federate(
    study: Study, folder: Path, *sites: ScriptedSite
) -> tuple[Commit, list[RoundFinished], tuple[RoundRecord, ...]]:
    heard: list[RoundFinished] = []
    commit = run_federation(ScriptedGrid(sites), study, folder, heard.append)
    return commit, heard, tuple(read_records(CheckpointStore(folder).history_path))


def initial(study: Study) -> Parameters:
    return read_parameters(build_network(study, study.federation.seed))


def added(commit: Commit, study: Study) -> float:
    """Return what was added to every parameter since the start."""
    start = initial(study)
    gains = torch.cat([(commit.parameters[n] - start[n]).flatten() for n in start])
    assert torch.allclose(gains, gains[0].expand_as(gains), atol=1e-5)
    return float(gains.mean())


# --- Who counts ----------------------------------------------------------------
def test_the_next_model_is_the_mean_of_the_answers(tmp_path: Path) -> None:
    study = study_with().with_changes({"evaluation.keep": "last"})
    sites = [ScriptedSite("a", study, 1.0), ScriptedSite("b", study, 3.0)]
    commit, heard, _ = federate(study, tmp_path, *sites)
    assert added(commit, study) == pytest.approx(3 * 2.0, abs=1e-4)
    assert [event.record.round for event in heard] == [1, 2, 3]


def error_reply(order: Order, update: SiteUpdate) -> Answer:
    return Error(2, "KeyError in the site's work, see the log")


def refusal(order: Order, update: SiteUpdate) -> Answer:
    return pack_refusal(Refusal("c", "data", "row 5 is empty"))


def silent_refusal(order: Order, update: SiteUpdate) -> Answer:
    return pack_refusal(Refusal("c", "policy"))


def wrong_shape(order: Order, update: SiteUpdate) -> SiteUpdate:
    update.parameters[next(iter(update.parameters))] = torch.zeros(7)
    return update


def missing_tensor(order: Order, update: SiteUpdate) -> SiteUpdate:
    update.parameters.popitem()
    return update


def stale_round(order: Order, update: SiteUpdate) -> Answer:
    return pack_update(
        SiteUpdate("c", order.digest, order.round - 1, 0, update.parameters, 10, 1, 0.1, 0.2)
    )


def other_study(order: Order, update: SiteUpdate) -> Answer:
    return pack_update(SiteUpdate("c", "f" * 64, order.round, 0, update.parameters, 10, 1, 0, 0))


def other_run(order: Order, update: SiteUpdate) -> SiteUpdate:
    return replace(update, run=new_run())


def no_update(order: Order, update: SiteUpdate) -> Answer:
    return RecordDict()


DISTURBANCES = [
    (error_reply, "KeyError"),
    (refusal, "row 5 is empty"),
    (silent_refusal, "policy"),
    (wrong_shape, "do not fit the network"),
    (missing_tensor, "missing"),
    (stale_round, "round 0"),
    (other_study, ""),
    (other_run, "an update of another run came in round 1"),
    (no_update, "cannot be read"),
]


@pytest.mark.parametrize(("disturb", "reason"), DISTURBANCES)
def test_a_bad_answer_is_refused_by_site_name_and_the_round_goes_on(
    tmp_path: Path, disturb: Callable[[Order, SiteUpdate], Answer], reason: str
) -> None:
    study = study_with(rounds=1).with_changes({"evaluation.keep": "last"})
    commit, _, records = federate(
        study,
        tmp_path,
        ScriptedSite("a", study, 1.0),
        ScriptedSite("b", study, 3.0),
        ScriptedSite("c", study, 100.0, disturb=disturb),
    )
    assert added(commit, study) == pytest.approx(2.0, abs=1e-4), "the bad answer does not count"
    assert [site.site for site in records[0].sites] == ["a", "b"]
    (refused,) = records[0].refusals
    assert refused.site == "c"
    assert reason in refused.reason


@pytest.mark.parametrize(("disturb", "reason"), DISTURBANCES)
def test_too_few_answers_end_the_run_with_every_reason(
    tmp_path: Path, disturb: Callable[[Order, SiteUpdate], Answer], reason: str
) -> None:
    study = study_with(minimum_sites=2)
    with pytest.raises(RunError) as end:
        federate(
            study, tmp_path, ScriptedSite("a", study), ScriptedSite("c", study, disturb=disturb)
        )
    assert "round 1 has 1 updates and needs 2" in str(end.value)
    assert "c: " in str(end.value)
    assert reason in str(end.value)
    assert "federation.minimum_sites" in str(end.value)
    last = CheckpointStore(tmp_path).latest()
    assert last is not None
    assert last.progress.round == 0, "a round without its quorum is not committed"


def test_a_run_goes_on_where_a_lost_quorum_ended_it(tmp_path: Path) -> None:
    study = study_with(minimum_sites=2)
    fails_in_round_two = lambda order, update: (  # noqa: E731 # as short as a script can be
        error_reply(order, update) if order.round == 2 else update
    )
    with pytest.raises(RunError):
        federate(
            study,
            tmp_path,
            ScriptedSite("a", study),
            ScriptedSite("b", study, disturb=fails_in_round_two),
        )
    _, heard, records = federate(
        study, tmp_path, ScriptedSite("a", study), ScriptedSite("b", study)
    )
    assert [event.record.round for event in heard] == [2, 3]
    assert [record.round for record in records] == [1, 2, 3, 4]


# --- What a site is told of itself -----------------------------------------------
class HearingSite(ScriptedSite):
    """A site that remembers how it stood in each order, and counts up its ledger."""

    def __init__(
        self, *args: Any, ledger: Iterable[int] = (), heads: Iterable[str] = (), **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._heads = itertools.chain(heads, itertools.repeat(""))
        self._ledger = itertools.chain(ledger, itertools.repeat(0))
        self.heard: list[tuple[str, int, int, int]] = []
        self.runs: set[str] = set()

    def answer(self, message: Message) -> Answer:
        kind = message.metadata.message_type
        if not kind.startswith("query"):
            order = unpack_order(message.content)
            self.heard.append((kind, order.round, order.counted_round, order.ledger.entries))
            self.runs.add(order.run)
        answer = super().answer(message)
        ledger = next(self._ledger) if kind == "train" else 0
        if ledger and isinstance(answer, RecordDict) and "header" in answer:
            header = configs_of(answer)["header"]
            header["ledger"], header["ledger-head"] = ledger, next(self._heads)
        return answer


def test_a_site_hears_which_of_its_updates_was_counted_last(tmp_path: Path) -> None:
    study = study_with(rounds=4, minimum_sites=1)
    refused = lambda order, update: (  # noqa: E731 # as short as a script can be
        wrong_shape(order, update) if order.round in (2, 4) else update
    )
    fine, other = HearingSite("a", study), HearingSite("b", study, disturb=refused)
    federate(study, tmp_path, fine, other)
    assert [counted for _, _, counted, _ in fine.heard] == [0, 1, 2, 3, 4]
    assert [(kind, counted) for kind, _, counted, _ in other.heard] == [
        ("train", 0),
        ("train", 1),
        ("train", 1),
        ("train", 3),
        ("evaluate", 3),
    ]


def test_a_site_hears_the_highest_count_of_its_ledger_even_of_a_refused_update(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=4, minimum_sites=1)
    refused = lambda order, update: (  # noqa: E731 # as short as a script can be
        wrong_shape(order, update) if order.round == 2 else update
    )
    site = HearingSite("b", study, disturb=refused, ledger=(3, 5, 2, 4))
    other = HearingSite("a", study)
    federate(study, tmp_path, other, site)
    assert [ledger for _, _, _, ledger in site.heard] == [0, 3, 5, 5, 5]
    assert {ledger for _, _, _, ledger in other.heard} == {0}


def test_an_update_of_a_ledger_that_was_written_anew_is_not_counted(tmp_path: Path) -> None:
    study = study_with(rounds=3, minimum_sites=1)
    site = HearingSite("b", study, ledger=(3, 5, 5), heads=("x", "y", "z"))
    _, _, records = federate(study, tmp_path, ScriptedSite("a", study), site)
    counted = [[one.site for one in record.sites] for record in records[:3]]
    assert counted == [["a", "b"], ["a", "b"], ["a"]]
    (refusal,) = records[2].refusals
    assert refusal.site == "b"
    assert refusal.reason.startswith(
        "entry 5 of its privacy ledger is not the one that this server"
    )


def test_a_resumed_run_keeps_its_name_and_what_was_counted_and_a_new_run_has_another(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=3, minimum_sites=2)
    fails = lambda order, update: (  # noqa: E731 # as short as a script can be
        error_reply(order, update) if order.round == 3 else update
    )
    first = HearingSite("b", study, disturb=fails, ledger=(1, 2))
    with pytest.raises(RunError):
        federate(study, tmp_path / "one", ScriptedSite("a", study), first)
    again = HearingSite("b", study)
    federate(study, tmp_path / "one", ScriptedSite("a", study), again)
    assert again.heard[0] == ("train", 3, 2, 2)
    assert again.runs == first.runs
    assert len(first.runs) == 1
    new = HearingSite("b", study)
    federate(study, tmp_path / "two", ScriptedSite("a", study), new)
    assert new.heard[0] == ("train", 1, 0, 0)
    assert not new.runs & first.runs


# --- Introductions -------------------------------------------------------------
def test_two_sites_with_one_name_are_refused(tmp_path: Path) -> None:
    study = study_with()
    with pytest.raises(RunError, match=r"same name \(a\): rename one in its site\.toml"):
        federate(study, tmp_path, ScriptedSite("a", study), ScriptedSite("a", study))


def test_a_site_with_another_study_is_refused(tmp_path: Path) -> None:
    study = study_with()
    other = ScriptedSite("b", study_with(rounds=9))
    with pytest.raises(RunError, match=r"b works on study .* give both the same study file"):
        federate(study, tmp_path, ScriptedSite("a", study), other)


def test_a_site_with_another_version_is_refused(tmp_path: Path) -> None:
    study = study_with()
    other = ScriptedSite("b", study)
    other.introduction = Introduction("b", "0.0.1", study.digest, 10)
    with pytest.raises(RunError, match=r"b runs wardround 0\.0\.1.*install the same version"):
        federate(study, tmp_path, ScriptedSite("a", study), other)


def test_a_site_that_cannot_read_its_data_is_refused_before_the_first_round(
    tmp_path: Path,
) -> None:
    study = study_with()
    site = ScriptedSite("b", study)
    site.answer = lambda _: pack_refusal(Refusal("b", "data", "row 3 is empty"))  # type: ignore[method-assign] # a script
    with pytest.raises(DataError, match="b cannot take part: row 3 is empty"):
        federate(study, tmp_path, ScriptedSite("a", study), site)


# --- When a run ends, and with which model --------------------------------------
def falling_then_rising(study: Study) -> list[ScriptedSite]:
    # The best model is that of round 1.
    return [ScriptedSite(name, study, 1.0, (0.9, 0.3, 0.6, 0.7, 0.8, 0.9)) for name in "ab"]


def test_the_best_model_on_validation_patients_is_kept(tmp_path: Path) -> None:
    study = study_with(rounds=5)
    commit, _, _ = federate(study, tmp_path, *falling_then_rising(study))
    assert commit.progress.round == 1
    assert added(commit, study) == pytest.approx(1.0, abs=1e-4)


def test_the_last_model_is_kept_where_the_study_says_so(tmp_path: Path) -> None:
    study = study_with(rounds=5).with_changes({"evaluation.keep": "last"})
    commit, _, _ = federate(study, tmp_path, *falling_then_rising(study))
    assert commit.progress.round == 5
    assert added(commit, study) == pytest.approx(5.0, abs=1e-4)


def test_the_last_model_is_kept_if_it_is_the_best(tmp_path: Path) -> None:
    study = study_with(rounds=2)
    sites = [ScriptedSite(name, study, 1.0, (0.9, 0.5, 0.1)) for name in "ab"]
    commit, _, records = federate(study, tmp_path, *sites)
    assert commit.progress.round == 2
    assert [record.measured_round for record in records] == [0, 1, 2]


def test_training_stops_when_nothing_improves(tmp_path: Path) -> None:
    study = study_with(rounds=50, patience_rounds=2)
    commit, heard, _ = federate(study, tmp_path, *falling_then_rising(study))
    # Round 4 measures the model of round 3, two rounds after the best one.
    assert [event.record.round for event in heard] == [1, 2, 3, 4]
    assert commit.progress.round == 1


def test_a_run_that_stopped_early_does_not_go_on_when_it_is_resumed(tmp_path: Path) -> None:
    study = study_with(rounds=50, patience_rounds=2)
    federate(study, tmp_path, *falling_then_rising(study))
    _, heard, _ = federate(study, tmp_path, *falling_then_rising(study))
    assert heard == []


def test_the_listener_hears_the_metric_of_the_model_that_the_round_started_from(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=2)
    sites = [ScriptedSite("a", study, losses=(0.2, 0.4)), ScriptedSite("b", study, losses=(0.6, 1))]
    _, heard, _ = federate(study, tmp_path, *sites)
    assert [event.value for event in heard] == pytest.approx([0.4, 0.7])
    assert {event.metric for event in heard} == {"loss"}


def test_checkpoints_of_another_study_are_refused(tmp_path: Path) -> None:
    study = study_with(rounds=1)
    federate(study, tmp_path, ScriptedSite("a", study), ScriptedSite("b", study))
    other = study_with(rounds=2)
    with pytest.raises(RunError, match="belong to another study"):
        federate(other, tmp_path, ScriptedSite("a", other), ScriptedSite("b", other))


# --- Measurements --------------------------------------------------------------
def test_measurements_of_all_sites_weigh_every_patient_the_same() -> None:
    study = study_with()
    sums = {"a": measured(study, 1, 0.2), "b": measured(study, 9, 0.7)}
    found = as_measurements(sums, "test", study)
    assert [m.site for m in found] == ["a", "b", "all sites"]
    assert overall(found, "loss") == pytest.approx((0.2 + 9 * 0.7) / 10)
    assert math.isnan(overall((), "loss"))


def refuses_to_evaluate(site: ScriptedSite) -> ScriptedSite:
    answer = site.answer
    site.answer = lambda message: (  # type: ignore[method-assign] # a script
        pack_refusal(Refusal(site.name, "policy", "AUROC may not leave"))
        if message.metadata.message_type == "evaluate"
        else answer(message)
    )
    return site


def test_a_site_that_refuses_to_evaluate_stands_in_the_history(tmp_path: Path) -> None:
    study = study_with(rounds=1)
    site = refuses_to_evaluate(ScriptedSite("b", study))
    _, _, records = federate(study, tmp_path, ScriptedSite("a", study), site)
    closing = records[-1]
    assert closing.refusals == (RefusalRecord("b", "AUROC may not leave", "validation"),)
    assert [m.site for m in closing.measurements] == ["a", "all sites"]
    (note,) = refusal_notes(closing.refusals)
    assert note.startswith("b did not always evaluate on its validation patients (AUROC may not")


@pytest.mark.parametrize("wrong", [{"run": "f" * 32}, {"round": 7}, {"digest": "0"}])
def test_an_evaluation_of_another_model_is_not_taken_for_this_one(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    study = study_with(rounds=1)
    site = ScriptedSite("b", study)
    answer = site.answer

    def about_another(message: Message) -> Answer:
        content = answer(message)
        if message.metadata.message_type == "evaluate" and isinstance(content, RecordDict):
            configs_of(content)["header"].update(wrong)
        return content

    site.answer = about_another  # type: ignore[method-assign] # a script
    _, _, records = federate(study, tmp_path, ScriptedSite("a", study), site)
    (refused,) = records[-1].refusals
    assert (refused.site, refused.asked) == ("b", "validation")
    assert "not of the model of round 1 of this run" in refused.reason


def test_a_number_beats_nan_and_the_metric_has_a_direction() -> None:
    assert is_better(0.1, math.nan, "auroc")
    assert not is_better(math.nan, 0.1, "auroc")
    assert is_better(0.8, 0.7, "auroc")
    assert not is_better(0.7, 0.7, "auroc")
    assert is_better(0.7, 0.8, "loss")


def test_the_server_app_can_be_made_without_a_listener() -> None:
    assert make_server_app() is not make_server_app()
