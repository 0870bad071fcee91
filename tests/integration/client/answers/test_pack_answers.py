"""What a hospital answers to a study that asks for evidence: once a run, bounded, written down."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    context_of,
    instruction_for,
    log_of,
    refusal_of,
    said_by,
    write_policy,
    write_site,
)
from tests.support.hospitals.image_ward import volume, ward_study, write_ward

from wardround.client.app import app, close_sessions
from wardround.client.egress.packs import answer as pack_answer
from wardround.common.flower.messages.content import arrays_of, to_bytes
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.audit import REPORT_RECORD
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.messages.packs import (
    PACK,
    PLACEMENTS,
    pack_packs,
    question_of,
    unpack_packs,
    unpack_placements,
)
from wardround.common.messages.replies import unpack_refusal
from wardround.common.metrics.packs.gains import GainPack
from wardround.common.metrics.packs.intervals import IntervalPack
from wardround.common.metrics.packs.ratios import RatioSums
from wardround.common.metrics.packs.registry import Packs
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.packs import PACKS, ratios_of
from wardround.common.study.study import Study

ALL_PACKS = str(list(PACKS)).replace("'", '"')


def study_with(*packs: str, **changes: Any) -> Study:
    content = STUDY.model_dump(exclude_defaults=True)
    content["study"]["name"] = "packs"
    content["evaluation"] = {
        "metric": "auroc",
        "pack": list(packs),
        "subgroups": ["x"],
        "bands": {"x": [0.5]},
        "test_fraction": 0.3,
        **changes,
    }
    return parse_study(content)


WHOLE = study_with(*PACKS)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


def ward(tmp_path: Path, study: Study = WHOLE, **policy: str) -> Path:
    said = {"packs": ALL_PACKS, "approved": f'["{study.digest}"]', **policy}
    return write_site(tmp_path / "north", 300, **said)


def order(folder: Path, study: Study = WHOLE, run: str = "") -> Instruction:
    found = replace(instruction_for(folder, 3, study), split="test")
    return replace(found, run=run) if run else found


def place(
    folder: Path, instruction: Instruction, merged: ScoreCounts, study: Study = WHOLE
) -> RecordDict:
    claim_identity(1)
    question = question_of(replace(instruction, parameters={}), instruction.parameters, merged)
    message = Message(question, 7, PLACEMENTS)
    stamp(message, "message-1")
    return app(message, context_of(folder, study)).content


def intervals_of(content: RecordDict, study: Study = WHOLE) -> IntervalPack:
    pack = unpack_packs(content, study).packs["intervals"]
    assert isinstance(pack, IntervalPack)
    return pack


def counts_of(content: RecordDict) -> ScoreCounts:
    counts = intervals_of(content).counts
    assert counts is not None
    return counts


def tables_of(content: RecordDict) -> bytes:
    return b"".join(one.data for one in arrays_of(content)["pack"].values())


def test_what_crosses_the_wall_is_the_studys_tables_of_many_patients(tmp_path: Path) -> None:
    folder = ward(tmp_path)
    content = ask(folder, PACK, order(folder), WHOLE)
    assert set(content) - {REPORT_RECORD} == {"header", "facts", "pack"}
    said = unpack_packs(content, WHOLE)
    assert (said.patients, said.cell, said.withheld) == (90, 10, frozenset())
    for name, array in arrays_of(content)["pack"].items():
        values = array.numpy()
        if values.dtype == np.int64:
            assert (values % 10 == 0).all(), name
        else:
            assert (np.round(values, 3) == values).all(), name
    assert b"p17" not in to_bytes(content)
    assert [e.event.kind for e in log_of(folder)] == ["pack"]
    assert log_of(folder)[-1].event.bytes > 0


def test_placements_follow_once_and_are_written_down_too(tmp_path: Path) -> None:
    folder = ward(tmp_path)
    instruction = order(folder)
    merged = counts_of(ask(folder, PACK, instruction, WHOLE))
    sums = unpack_placements(place(folder, instruction, merged), WHOLE).sums
    assert (sums.patients[:, 2] == 90).all()
    assert said_by(folder) == [("pack", "allow"), ("placements", "allow")]


def test_asked_again_the_same_bytes_leave_though_the_patients_changed(tmp_path: Path) -> None:
    folder = ward(tmp_path)
    instruction = order(folder)
    first = ask(folder, PACK, instruction, WHOLE)
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-40]))
    close_sessions()
    assert tables_of(ask(folder, PACK, instruction, WHOLE)) == tables_of(first)
    # What the second exchange would tell is no longer of the patients of the first: it is nothing.
    sums = unpack_placements(place(folder, instruction, counts_of(first)), WHOLE).sums
    assert not sums.patients.any()


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"torn"])
def test_a_damaged_kept_answer_is_not_made_anew(tmp_path: Path, content: bytes) -> None:
    """On 3cda7f4 it was said to be a defect of wardround."""
    folder = ward(tmp_path)
    instruction = order(folder)
    first = ask(folder, PACK, instruction, WHOLE)
    (kept,) = (folder / "packs").glob("*.pack")
    kept.write_bytes(content)
    assert refusal_of(ask(folder, PACK, instruction, WHOLE))[1] == "policy"
    assert kept.read_bytes() == content
    if content:
        told = place(folder, instruction, counts_of(first))
        assert refusal_of(told)[1] == "policy"


def test_a_kept_answer_that_the_policy_no_longer_lets_out_is_denied(tmp_path: Path) -> None:
    """On 3cda7f4 the guard called the installation changed."""
    folder = ward(tmp_path)
    instruction = order(folder)
    ask(folder, PACK, instruction, WHOLE)
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace(ALL_PACKS, '["intervals"]'))
    assert refusal_of(ask(folder, PACK, instruction, WHOLE))[1] == "policy"
    assert said_by(folder)[-1] == ("refusal", "deny: packs")


def test_a_policy_that_says_nothing_of_packs_tells_none_and_trains(tmp_path: Path) -> None:
    folder = ward(tmp_path, packs="[]")
    assert refusal_of(ask(folder, PACK, order(folder), WHOLE))[1] == "policy"
    assert not (folder / "packs").exists()
    instruction = instruction_for(folder, 1, WHOLE)
    assert unpack_refusal(ask(folder, "train", instruction, WHOLE)) is None


def test_a_policy_may_let_out_some_packs_and_says_which_it_withholds(tmp_path: Path) -> None:
    folder = ward(tmp_path, packs='["gains"]')
    said = unpack_packs(ask(folder, PACK, order(folder), WHOLE), WHOLE)
    assert said.withheld == {"intervals", "calibration", "subgroups"}
    assert all(
        not array.any()
        for name, pack in said.packs.items()
        if name in said.withheld
        for array in pack.to_arrays().values()
    )
    gains = said.packs["gains"]
    assert isinstance(gains, GainPack)
    assert gains.patients.tolist() == [90, 90]


def test_only_so_many_runs_of_a_study_are_told(tmp_path: Path) -> None:
    folder = ward(tmp_path, largest_packs_of_a_study="2")
    orders = [order(folder, run=new_run()) for _ in range(3)]
    answers = [unpack_refusal(ask(folder, PACK, one, WHOLE)) for one in orders]
    assert [one is None for one in answers] == [True, True, False]
    assert answers[2] is not None
    assert answers[2].code == "policy"
    assert unpack_refusal(ask(folder, PACK, orders[0], WHOLE)) is None  # what was told stays told


def test_a_study_that_names_no_pack_is_told_none(tmp_path: Path) -> None:
    study = study_with()
    folder = ward(tmp_path, study)
    assert refusal_of(ask(folder, PACK, order(folder, study), study))[1] == "input"
    only = study_with("gains")
    write_policy(folder, packs=ALL_PACKS, approved=f'["{only.digest}"]')
    instruction = order(folder, only)
    said = unpack_packs(ask(folder, PACK, instruction, only), only)
    assert set(said.packs) == {"gains"}
    merged = ScoreCounts.empty(2, 100)
    assert refusal_of(place(folder, instruction, merged, only))[1] == "input"


def test_packs_are_of_test_patients_alone(tmp_path: Path) -> None:
    folder = ward(tmp_path)
    instruction = replace(order(folder), split="validation")
    assert refusal_of(ask(folder, PACK, instruction, WHOLE))[1] == "input"


def test_too_few_patients_tell_nothing_by_class(tmp_path: Path) -> None:
    folder = ward(tmp_path, smallest_cell="60", smallest_cohort="60")
    pack = intervals_of(ask(folder, PACK, order(folder), WHOLE))
    assert pack.counts is not None
    assert not pack.counts.positives.any()
    assert pack.ratios.patients.tolist() == [60, 60, *[0] * 8]  # all together are enough


def test_studies_that_promise_noise_name_no_packs() -> None:
    content = WHOLE.model_dump(exclude_defaults=True)
    for mode, word in (
        ("patient", "no noise is made for these sums"),
        ("site", "single hospitals"),
    ):
        with pytest.raises(Exception, match=word):
            parse_study({**content, "privacy": {"mode": mode}}, planned=False)
    with pytest.raises(Exception, match=r"unknown pack 'gain'\. Did you mean 'gains'"):
        parse_study({**content, "evaluation": {"pack": ["gain"]}})


# --- Smuggling: what predictions.csv holds, in the place of sums
def _rows_for_counts(packs: Packs) -> Packs:
    pack = packs["intervals"]
    assert isinstance(pack, IntervalPack)
    assert pack.counts is not None
    rows = np.arange(200).reshape(2, 100) + 2  # the manifest's rows
    return {**packs, "intervals": replace(pack, counts=replace(pack.counts, positives=rows))}


def _scores_for_means(packs: Packs) -> Packs:
    pack = packs["intervals"]
    assert isinstance(pack, IntervalPack)
    scores = np.random.default_rng(0).random(pack.ratios.means.shape)
    return {
        **packs,
        "intervals": replace(pack, ratios=RatioSums(pack.ratios.patients, scores)),
    }


def _rounded_scores_for_means(packs: Packs) -> Packs:
    pack = packs["intervals"]
    assert isinstance(pack, IntervalPack)
    scores = np.round(np.random.default_rng(0).random(pack.ratios.means.shape), 3)
    return {
        **packs,
        "intervals": replace(pack, ratios=RatioSums(pack.ratios.patients, scores)),
    }


def _differences_of_single_patients(packs: Packs) -> Packs:
    return {**packs, "gains": GainPack(np.array([1, 1]), np.array([[0.25, 0.0625], [0.5, 0.25]]))}


@pytest.mark.parametrize(
    "misuse",
    [
        _rows_for_counts,
        _scores_for_means,
        _rounded_scores_for_means,
        _differences_of_single_patients,
    ],
    ids=lambda misuse: misuse.__name__,
)
def test_no_prediction_of_a_patient_leaves_in_the_place_of_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misuse: Any
) -> None:
    """Code that was changed by mistake would be caught by the guard, and nothing is kept."""
    folder = ward(tmp_path)
    honest = pack_answer.reduce_packs
    monkeypatch.setattr(pack_answer, "reduce_packs", lambda *words: misuse(honest(*words)))
    assert refusal_of(ask(folder, PACK, order(folder), WHOLE))[1] == "guard"
    assert not list((folder / "packs").glob("*.pack"))
    monkeypatch.undo()
    assert unpack_refusal(ask(folder, PACK, order(folder), WHOLE)) is None


def test_a_table_more_than_the_study_names_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ward(tmp_path)

    def pack(said: Any) -> RecordDict:
        content = pack_packs(said)
        record = arrays_of(content)["pack"]
        record["predictions"] = next(iter(record.values()))
        return content

    monkeypatch.setattr(pack_answer, "pack_packs", pack)
    assert refusal_of(ask(folder, PACK, order(folder), WHOLE))[1] == "guard"


def test_a_segmentation_tells_sums_of_dice_and_distances(tmp_path: Path) -> None:
    study = ward_study(evaluation={"pack": ["intervals", "gains"], "test_fraction": 0.3})
    volumes = [volume(seed) for seed in range(8)]
    folder = write_ward(tmp_path / "north", volumes, study, packs=ALL_PACKS)
    content = ask(folder, PACK, order_of_ward(folder, study), study)
    said = unpack_packs(content, study)
    pack = said.packs["intervals"]
    assert isinstance(pack, IntervalPack)
    assert pack.counts is None
    named = [(one.metric, one.class_name) for one in ratios_of(study)]
    told = dict(zip(named, pack.ratios.patients.tolist(), strict=True))
    assert told["dice", "liver"] == told["surface-dice", "kidney"] == 1
    gains = said.packs["gains"]
    assert isinstance(gains, GainPack)
    assert gains.patients.tolist() == [1]
    assert gains.means.tolist() == [[0.0, 0.0]]  # it was asked about the model of the start
    merged = ScoreCounts.empty(3, 100)
    assert refusal_of(place(folder, order_of_ward(folder, study), merged, study))[1] == "input"


def order_of_ward(folder: Path, study: Study) -> Instruction:
    return replace(instruction_for(folder, 1, study), split="test")
