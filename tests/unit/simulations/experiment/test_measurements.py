"""Measurements of a model by all sites: how they weigh, and which are not taken."""

import math
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from tests.support.scripted_sites import Reply, ScriptedSite, federate, measured, study_with

from wardround.common.flower.messages.content import configs_of
from wardround.common.messages.replies import Refusal, pack_refusal
from wardround.server.checkpoints.history import RefusalRecord
from wardround.server.rounds.evaluation import as_measurements, is_better, overall
from wardround.simulations.experiment.rows import refusal_notes


def test_measurements_of_all_sites_weigh_every_patient_the_same() -> None:
    study = study_with()
    sums = {"a": measured(study, 1, 0.2), "b": measured(study, 9, 0.7)}
    found = as_measurements(sums, "test", study)
    assert [m.site for m in found] == ["a", "b", "all sites"]
    assert overall(found, "loss") == pytest.approx((0.2 + 9 * 0.7) / 10)
    assert math.isnan(overall((), "loss"))


def refuses_to_evaluate(site: ScriptedSite) -> ScriptedSite:
    reply = site.reply
    site.reply = lambda message: (  # type: ignore[method-assign] # a script
        pack_refusal(Refusal(site.name, "policy", "AUROC may not leave"))
        if message.metadata.message_type == "evaluate"
        else reply(message)
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
    reply = site.reply

    def about_another(message: Message) -> Reply:
        content = reply(message)
        if message.metadata.message_type == "evaluate" and isinstance(content, RecordDict):
            configs_of(content)["header"].update(wrong)
        return content

    site.reply = about_another  # type: ignore[method-assign] # a script
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
