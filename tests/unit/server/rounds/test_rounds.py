"""The round loop over a Grid of ours: whose answers count, and which are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict
from tests.support.scripted_sites import (
    Reply,
    ScriptedSite,
    added,
    error_reply,
    federate,
    study_with,
    wrong_shape,
)

from wardround.common.errors import RunError
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.messages.replies import Refusal, SiteUpdate, pack_refusal, pack_update
from wardround.common.study.loading import with_changes
from wardround.server.app import make_server_app
from wardround.server.checkpoints.store import CheckpointStore


def test_the_next_model_is_the_mean_of_the_replies(tmp_path: Path) -> None:
    study = with_changes(study_with(), {"evaluation.keep": "last"})
    sites = [ScriptedSite("a", study, 1.0), ScriptedSite("b", study, 3.0)]
    commit, heard, _ = federate(study, tmp_path, *sites)
    assert added(commit, study) == pytest.approx(3 * 2.0, abs=1e-4)
    assert [event.record.round for event in heard] == [1, 2, 3]


def refusal(instruction: Instruction, update: SiteUpdate) -> Reply:
    return pack_refusal(Refusal("c", "data", "row 5 is empty"))


def silent_refusal(instruction: Instruction, update: SiteUpdate) -> Reply:
    return pack_refusal(Refusal("c", "policy"))


def missing_tensor(instruction: Instruction, update: SiteUpdate) -> SiteUpdate:
    update.parameters.popitem()
    return update


def stale_round(instruction: Instruction, update: SiteUpdate) -> Reply:
    return pack_update(
        SiteUpdate(
            "c", instruction.digest, instruction.round - 1, 0, update.parameters, 10, 1, 0.1, 0.2
        )
    )


def other_study(instruction: Instruction, update: SiteUpdate) -> Reply:
    return pack_update(
        SiteUpdate("c", "f" * 64, instruction.round, 0, update.parameters, 10, 1, 0, 0)
    )


def other_run(instruction: Instruction, update: SiteUpdate) -> SiteUpdate:
    return replace(update, run=new_run())


def no_update(instruction: Instruction, update: SiteUpdate) -> Reply:
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
def test_a_bad_reply_is_refused_by_site_name_and_the_round_goes_on(
    tmp_path: Path, disturb: Callable[[Instruction, SiteUpdate], Reply], reason: str
) -> None:
    study = with_changes(study_with(rounds=1), {"evaluation.keep": "last"})
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
def test_too_few_replies_end_the_run_with_every_reason(
    tmp_path: Path, disturb: Callable[[Instruction, SiteUpdate], Reply], reason: str
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
    fails_in_round_two = lambda instruction, update: (  # noqa: E731 # as short as a script can be
        error_reply(instruction, update) if instruction.round == 2 else update
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


def test_the_server_app_can_be_made_without_a_listener() -> None:
    assert make_server_app() is not make_server_app()


def test_the_mean_of_the_rounds_models_is_evaluated_and_released_and_not_trained_on(
    tmp_path: Path,
) -> None:
    study = with_changes(study_with(ema=0.5), {"evaluation.keep": "last"})
    sent: list[dict[str, float]] = [{}, {}]

    def listening(instruction: Instruction, update: SiteUpdate) -> SiteUpdate:
        tensor = next(iter(instruction.parameters.values()))
        sent[0][str(instruction.round)] = float(tensor.flatten()[0])
        assert not instruction.validate
        return update

    sites = [ScriptedSite(name, study, 1.0, disturb=listening) for name in "ab"]
    commit, _, records = federate(study, tmp_path, *sites)
    assert added(commit, study) == pytest.approx((0.25 * 1 + 0.5 * 2 + 3) / 1.75, abs=1e-5)
    steps = [sent[0][str(number)] for number in (1, 2, 3)]
    assert [later - steps[0] for later in steps] == pytest.approx([0, 1, 2], abs=1e-5)
    assert all(record.measurements for record in records)


def test_a_mean_goes_on_bit_by_bit_where_a_run_was_stopped(tmp_path: Path) -> None:
    study = with_changes(study_with(ema=0.7, rounds=6), {"evaluation.keep": "last"})
    whole, _, _ = federate(study, tmp_path / "whole", *(ScriptedSite(n, study, 0.3) for n in "ab"))

    def until_the_fourth(instruction: Instruction, update: SiteUpdate) -> SiteUpdate | Reply:
        return update if instruction.round < 4 else pack_refusal(Refusal("a", "data", "stop"))

    stopping = (ScriptedSite(n, study, 0.3, disturb=until_the_fourth) for n in "ab")
    with pytest.raises(RunError):
        federate(study, tmp_path / "parts", *stopping)
    resumed, _, _ = federate(
        study, tmp_path / "parts", *(ScriptedSite(n, study, 0.3) for n in "ab")
    )
    assert all(torch.equal(resumed.parameters[name], t) for name, t in whole.parameters.items())
