"""What is measured of a model leaves in a sum of all hospitals, and of one model once."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.masking.test_runs import run
from tests.support.hospitals.hospital import ask, refusal_of, write_policy
from tests.support.hospitals.table_sites import study_for
from tests.support.hostile.consortium import MASKED, Consortium

from wardround.common.messages.instructions import EVALUATE, Instruction
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.masking import unpack_said
from wardround.common.study.plans.masking import plan_masking
from wardround.server.checkpoints.store import CheckpointStore

BEST = {"federation.secure_aggregation": True, "federation.rounds": 3}


def test_a_masked_run_keeps_the_best_model_as_a_plain_one_does(tmp_path: Path) -> None:
    masked = study_for("fedavg", **BEST)
    plain = study_for("fedavg", **{"federation.rounds": 3})
    assert masked.evaluation.keep == plain.evaluation.keep == "best"
    _, told = run(tmp_path / "masked", masked)
    _, clear = run(tmp_path / "plain", plain)
    assert [record.measured_round for record in told] == [0, 1, 2, 3]
    for one, other in zip(told, clear, strict=True):
        (here,) = (m for m in one.measurements if m.site == "all sites")
        (there,) = (m for m in other.measurements if m.site == "all sites")
        values = {v.metric: v.value for v in there.values if not v.class_name}
        for value in here.values:
            if not value.class_name and value.metric in ("loss", "accuracy"):
                assert value.value == pytest.approx(values[value.metric], abs=0.02)
    kept = CheckpointStore(tmp_path / "masked" / "checkpoints").latest()
    other = CheckpointStore(tmp_path / "plain" / "checkpoints").latest()
    assert kept is not None
    assert other is not None
    assert kept.progress.best_round == other.progress.best_round


def test_the_mean_of_all_rounds_models_is_measured_under_a_mask(tmp_path: Path) -> None:
    _, records = run(tmp_path, study_for("fedavg", **BEST, **{"federation.ema": 0.5}))
    assert all(record.measurements for record in records)


def measured(three: Consortium, **changes: object) -> Instruction:
    return replace(three.instruction, **changes)  # type: ignore[arg-type] # of any field


def test_what_is_measured_is_masked_and_of_a_model_once(tmp_path: Path) -> None:
    three = Consortium(tmp_path)
    asked = measured(three)
    said = unpack_said(ask(three.folders["north"], EVALUATE, asked, MASKED))
    assert said.stage == "advertise"
    again = unpack_said(ask(three.folders["north"], EVALUATE, asked, MASKED))
    assert again.signed == said.signed  # the same question has the same answer
    later = replace(asked, round=asked.round + 1)  # of the same model, perhaps with other sites
    content = ask(three.folders["north"], EVALUATE, later, MASKED)
    three.require_refused("north", content, "same-update")


def test_a_model_that_was_measured_in_a_round_is_not_measured_beside_it(tmp_path: Path) -> None:
    three = Consortium(tmp_path)
    write_policy(
        three.folders["north"], approved=f'["{MASKED.digest}"]', metrics='"sums"', smallest_cell="1"
    )
    unpack_said(three.train("north"))
    content = ask(three.folders["north"], EVALUATE, measured(three), MASKED)
    three.require_refused("north", content, "same-update")


def test_test_patients_are_measured_for_nobody(tmp_path: Path) -> None:
    three = Consortium(tmp_path)
    asked = measured(three, split="test")
    refusal = refusal_of(ask(three.folders["north"], EVALUATE, asked, MASKED))
    assert refusal is not None
    assert refusal[1] == "evaluations"


def test_a_measurement_is_one_sum_of_all_where_updates_are_in_groups() -> None:
    grouped = study_for(
        "trimmed-mean",
        **BEST,
        **{"federation.masks.groups": 3, "federation.minimum_sites": 9},
    )
    plan = plan_masking(grouped)
    assert plan is not None
    configuration = VectorLayout.of_measurement(grouped, plan).configuration
    assert (configuration.groups, configuration.smallest_roster) == (1, 9)
