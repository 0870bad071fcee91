"""When a run ends, and which of its models is kept."""

from pathlib import Path

import pytest
from tests.support.scripted_sites import ScriptedSite, added, federate, study_with

from wardround.common.errors import RunError
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study


def falling_then_rising(study: Study) -> list[ScriptedSite]:
    # The best model is that of round 1.
    return [ScriptedSite(name, study, 1.0, (0.9, 0.3, 0.6, 0.7, 0.8, 0.9)) for name in "ab"]


def test_the_best_model_on_validation_patients_is_kept(tmp_path: Path) -> None:
    study = study_with(rounds=5)
    commit, _, _ = federate(study, tmp_path, *falling_then_rising(study))
    assert commit.progress.round == 1
    assert added(commit, study) == pytest.approx(1.0, abs=1e-4)


def test_the_last_model_is_kept_where_the_study_says_so(tmp_path: Path) -> None:
    study = with_changes(study_with(rounds=5), {"evaluation.keep": "last"})
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
