"""What may leave a site: exactly the messages of its study, and of a private one almost nothing."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

import wardround
from wardround.client.egress.disclosure import (
    reduce_evaluation,
    reduce_metrics,
    reduce_site_info,
    reduce_update,
)
from wardround.client.egress.guard import (
    Count,
    Empty,
    Exactly,
    FreeText,
    MessageSchema,
    Number,
    OneOf,
    check_message,
)
from wardround.client.egress.message_schema import SiteSchemas, refusal_schema
from wardround.client.policy.policy import OPEN_POLICY, Policy
from wardround.client.session.model_context import ModelContext
from wardround.common.errors import GuardError, InputError
from wardround.common.flower.messages.content import fingerprint_of
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.messages.replies import (
    Refusal,
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    pack_evaluation,
    pack_refusal,
    pack_site_info,
    pack_update,
    unpack_update,
)
from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.records import values_from_record, values_to_record
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.sums import MetricSums, SiteValues, empty_sums
from wardround.common.models.sharing import auxiliary_schema
from wardround.common.parameters.compression import (
    COMPRESSIONS,
    CompressionOptions,
    compress,
    update_of,
)
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.patient_privacy import steps_of
from wardround.common.study.study import Study
from wardround.server.rounds.evaluation import MEAN_OF_SITES, as_measurements, overall

HOSPITAL = Policy(approved=("0" * 64,), privacy_required=False)
LARGEST = 10**7
NORMALISED = {"network": "small-cnn", "features": [4, 8], "normalisation": "batch"}


def study_with(network: dict[str, Any] | None = None, **sections: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "tiny", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [16, 16]},
            "model": network or {**NORMALISED, "normalisation": "group"},
            "training": {"local_epochs": 1, "batch_size": 8, "optimiser": "sgd"},
            "federation": {"rounds": 2},
            **sections,
        }
    )


PLAIN = study_with()
PRIVATE = study_with(privacy={"mode": "patient", "noise_multiplier": 1.0})


def schemas_of(
    study: Study, policy: Policy = HOSPITAL, training: int = 47
) -> tuple[SiteSchemas, ModelContext]:
    context = ModelContext.build(study, "cpu")
    cohorts = SimpleNamespace(train=range(training), validation=range(23), test=range(31))
    session: Any = SimpleNamespace(
        context=context, site=SimpleNamespace(name="north"), cohorts=cohorts
    )
    return SiteSchemas(session, policy), context


def instruction_for(study: Study, **changes: Any) -> Instruction:
    return replace(Instruction(study.digest, new_run(), 2, {}, attempt=1), **changes)


def honest_update(study: Study, context: ModelContext, instruction: Instruction) -> SiteUpdate:
    """Return what a session of 47 examinations says: exact, and with tables."""
    shared = context.layout.shared_part(read_parameters(context.network))
    auxiliary = {
        spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in auxiliary_schema(context.plan, context.layout, shared)
    }
    kind = study.federation.compression
    change = update_of({name: t + torch.rand(t.shape).to(t) for name, t in shared.items()}, shared)
    sent = shared if kind == "none" else compress(change, kind, CompressionOptions())[0]
    steps = steps_of(study) if study.privacy.mode == "patient" else 6
    return SiteUpdate(
        site="north",
        digest=study.digest,
        round=instruction.round,
        attempt=instruction.attempt,
        parameters=sent,
        examinations=47,
        updates=steps,
        seconds=12.3456,
        training_loss=0.654321,
        metrics=sums_of([[11, 1], [0, 11]]),
        auxiliary=auxiliary,
        run=instruction.run,
    )


def sums_of(confusion: list[list[int]]) -> MetricSums:
    """Return the sums of a classifier that is sure of all it says."""
    table = np.array(confusion, dtype=np.int64)
    bins, count = PLAIN.evaluation.score_bins, int(table.sum())
    positives = np.zeros((len(table), bins), dtype=np.int64)
    negatives = np.zeros_like(positives)
    for k in range(len(table)):
        found, truth = table[:, k].sum(), table[k].sum()
        positives[k, -1], positives[k, 0] = table[k, k], truth - table[k, k]
        negatives[k, -1] = found - table[k, k]
        negatives[k, 0] = count - truth - negatives[k, -1]
    pairs = np.zeros(len(table))
    counted = ClassificationSums(table, positives, negatives, pairs)
    return MetricSums(count, 0.5 * count, counted)


def rows(schema: MessageSchema) -> set[str]:
    """Return every place of a schema."""
    places = {
        f"{name}/{key}"
        for records in (schema.settings, schema.numbers)
        for name, fields in records.items()
        for key in fields
    }
    return places | {f"{name}/{s.name}" for name, specs in schema.arrays.items() for s in specs}


# --- Honest messages pass -------------------------------------------------------------------
@pytest.mark.parametrize("policy", [HOSPITAL, OPEN_POLICY], ids=["hospital", "simulation"])
@pytest.mark.parametrize(
    "federation",
    [
        *({"compression": kind} for kind in COMPRESSIONS),
        {"strategy": "scaffold"},
        {"strategy": "qfedavg"},
        {"strategy": "fedbn"},
        {"strategy": "fedper"},
    ],
    ids=lambda federation: "-".join(federation.values()),
)
def test_what_an_honest_site_says_passes(federation: dict[str, Any], policy: Policy) -> None:
    study = study_with(NORMALISED, federation={"rounds": 2, **federation})
    schemas, context = schemas_of(study, policy)
    instruction = instruction_for(study)
    said = reduce_update(honest_update(study, context, instruction), study, policy)
    content = pack_update(said)
    check_message(content, schemas.update(instruction), LARGEST)
    again = unpack_update(content, study)
    assert (again.examinations, again.run) == (said.examinations, said.run)
    evaluation = SiteEvaluation("north", study.digest, 2, said.metrics, 20.0, instruction.run)
    check_message(pack_evaluation(evaluation), schemas.evaluation(instruction), LARGEST)


def test_a_control_variate_of_a_private_study_passes() -> None:
    study = study_with(
        privacy={"mode": "patient", "noise_multiplier": 1.0}, federation={"strategy": "scaffold"}
    )
    schemas, context = schemas_of(study)
    instruction = instruction_for(study)
    said = reduce_update(honest_update(study, context, instruction), study, HOSPITAL)
    assert said.auxiliary
    check_message(pack_update(said), schemas.update(instruction), LARGEST)


def test_a_hospital_says_numbers_rounded_and_a_simulation_exact_ones() -> None:
    _, context = schemas_of(PLAIN)
    exact = honest_update(PLAIN, context, instruction_for(PLAIN))
    said = reduce_update(exact, PLAIN, HOSPITAL)
    assert (said.examinations, said.updates) == (40, 5)  # 5 steps of 8: those of 40, not of 47
    assert (said.seconds, said.training_loss) == (20.0, 0.654)
    assert isinstance(said.metrics, SiteValues)
    assert reduce_update(exact, PLAIN, OPEN_POLICY) == exact


def test_a_loss_of_fewer_examinations_than_a_cell_is_not_said() -> None:
    study = study_with(training={"local_steps": 1, "batch_size": 8})
    _, context = schemas_of(study)
    update = replace(honest_update(study, context, instruction_for(study)), updates=1)
    assert math.isnan(reduce_update(update, study, HOSPITAL).training_loss)
    silent = HOSPITAL.model_copy(update={"metrics": "none"})
    said = reduce_update(replace(update, updates=9), study, silent)
    assert math.isnan(said.training_loss)
    assert said.metrics is None


def test_notes_and_an_exact_count_leave_a_simulation_only() -> None:
    site_info = SiteInfo("north", wardround.__version__, PLAIN.digest, 47, ("row 3",))
    said = reduce_site_info(site_info, PLAIN, HOSPITAL)
    assert (said.examinations, said.notes) == (40, ())
    assert reduce_site_info(site_info, PLAIN, OPEN_POLICY) == site_info
    schemas, _ = schemas_of(PLAIN)
    said = replace(said, base=schemas_of(PLAIN)[1].fingerprint)
    check_message(pack_site_info(said), schemas.site_info(), LARGEST)
    for other in (replace(said, notes=("x",)), replace(said, examinations=47)):
        with pytest.raises(GuardError):
            check_message(pack_site_info(other), schemas.site_info(), LARGEST)


# --- P10: what a private study says ---------------------------------------------------------
def test_p10_a_private_update_is_parameters_and_constants_of_the_study() -> None:
    schemas, context = schemas_of(PRIVATE)
    schema = schemas.update(instruction_for(PRIVATE))
    assert schema.numbers["facts"] == {
        "examinations": Exactly(1),
        "updates": Exactly(steps_of(PRIVATE)),
    }
    assert set(schema.arrays) == {"model"}
    assert {spec.name for spec in schema.arrays["model"]} == context.layout.trainable
    trainable = {f"model/{name}" for name in context.layout.trainable}
    header = {"site", "digest", "run", "round", "attempt", "ledger", "ledger-head"}
    facts = {"facts/examinations", "facts/updates"}
    assert rows(schema) == trainable | facts | {f"header/{key}" for key in header}


def test_p10_what_privacy_takes_out_of_an_update() -> None:
    public = schemas_of(PLAIN, HOSPITAL)[0].update(instruction_for(PLAIN))
    tables = schemas_of(PLAIN, OPEN_POLICY)[0].update(instruction_for(PLAIN))
    private = schemas_of(PRIVATE, OPEN_POLICY)[0].update(instruction_for(PRIVATE))
    assert rows(public) - rows(private) == {
        "facts/seconds",
        "facts/training-loss",
        *(f"values/{n}" for n in ("examinations", "loss", "accuracy", "balanced-accuracy")),
        "values/f1",
        "values/auroc",
    }
    gone = {place.partition("/")[0] for place in rows(tables) - rows(private)}
    assert gone == {"facts", "metrics"}
    assert rows(private) - rows(tables) == {"header/ledger", "header/ledger-head"}


def test_p10_no_message_of_a_private_study_depends_on_how_many_patients_there_are() -> None:
    instruction = instruction_for(PRIVATE)
    one, other = (schemas_of(PRIVATE, training=count)[0] for count in (47, 123))
    assert one.update(instruction) == other.update(instruction)
    assert one.site_info() == other.site_info()


def test_p10_a_private_site_says_neither_count_nor_loss_nor_time() -> None:
    _, context = schemas_of(PRIVATE)
    instruction = instruction_for(PRIVATE)
    update = honest_update(PRIVATE, context, instruction)
    for policy in (HOSPITAL, OPEN_POLICY):
        said = reduce_update(update, PRIVATE, policy)
        content = pack_update(said)
        check_message(content, schemas_of(PRIVATE, policy)[0].update(instruction), LARGEST)
        facts = content["facts"]
        assert dict(facts) == {"examinations": 1, "updates": steps_of(PRIVATE)}
        assert said.metrics is None
        site_info = SiteInfo("north", "1", PRIVATE.digest, 47, ("no class b",))
        short = reduce_site_info(site_info, PRIVATE, policy)
        assert (short.examinations, short.notes) == (1, ())
        evaluation = SiteEvaluation("north", PRIVATE.digest, 1, None, 12.3)
        assert reduce_evaluation(evaluation, PRIVATE, policy).seconds == 0


def test_a_private_update_with_a_running_mean_or_extras_is_refused() -> None:
    schemas, context = schemas_of(PRIVATE)
    instruction = instruction_for(PRIVATE)
    said = reduce_update(honest_update(PRIVATE, context, instruction), PRIVATE, HOSPITAL)
    mean = {"features.1.running_mean": torch.zeros(4)}
    for changed in (
        replace(said, parameters={**said.parameters, **mean}),
        replace(said, auxiliary={"received-loss": torch.zeros(())}),
        replace(said, examinations=47),
        replace(said, updates=said.updates + 1),
        replace(said, training_loss=0.5),
        replace(said, seconds=10.0),
        replace(said, metrics=SiteValues(20, {"loss": 0.5})),
        replace(said, metrics=sums_of([[10, 0], [0, 10]])),
    ):
        with pytest.raises(GuardError):
            check_message(pack_update(changed), schemas.update(instruction), LARGEST)


# --- Small cells ----------------------------------------------------------------------------
def test_a_class_with_few_cases_takes_its_metrics_with_it_and_not_the_loss() -> None:
    large = reduce_metrics(sums_of([[12, 1], [2, 11]]), PLAIN, 10)
    assert large is not None
    assert large.examinations == 20
    assert large.values["accuracy"] == pytest.approx(23 / 26, abs=5e-4)
    assert set(large.values) == {"loss", "accuracy", "balanced-accuracy", "f1", "auroc"}
    small = reduce_metrics(sums_of([[12, 1], [2, 7]]), PLAIN, 10)
    assert small is not None
    assert set(small.values) == {"loss"}
    assert reduce_metrics(sums_of([[5, 1], [2, 1]]), PLAIN, 10) is None


def test_a_structure_that_few_cases_have_takes_dice_with_it() -> None:
    study = parse_study(
        {
            "study": {"name": "seg", "task": "segmentation"},
            "data": {"classes": ["none", "a", "b"], "size": [16, 16]},
            "model": {"network": "unet", "features": [4, 8]},
        }
    )
    empty = empty_sums(study).measured
    assert isinstance(empty, SegmentationSums)
    for cases, said in (([30, 30, 12], {"loss", "dice"}), ([30, 30, 3], {"loss"})):
        counted = np.array(cases)
        part = replace(empty, dice=counted * 0.8, dice_cases=counted)
        found = reduce_metrics(MetricSums(30, 15.0, part), study, 10)
        assert found is not None
        assert set(found.values) == said


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=2, max_size=2), min_size=2, max_size=2),
    st.integers(1, 20),
)
def test_whatever_is_said_is_rounded_and_of_large_cells(
    confusion: list[list[int]], cell: int
) -> None:
    sums = sums_of(confusion)
    said = reduce_metrics(sums, PLAIN, cell)
    if said is None:
        assert sums.examinations < cell
        return
    assert said.examinations % cell == 0
    assert cell <= said.examinations <= sums.examinations
    for name, value in said.values.items():
        assert value == round(value, 3)
        assert name == "loss" or all(not 0 < sum(row) < cell for row in confusion)


def test_values_come_back_as_they_were_and_others_are_refused() -> None:
    said = SiteValues(20, {"auroc": 0.912, "loss": 0.5})
    assert values_from_record(values_to_record(said), PLAIN) == said
    for wrong in (
        SiteValues(20, {"dice": 0.5}),
        SiteValues(20, {"auroc": math.nan}),
        SiteValues(-20, {"auroc": 0.5}),
    ):
        with pytest.raises(InputError, match="same version"):
            values_from_record(values_to_record(wrong), PLAIN)


def test_the_server_calls_a_mean_of_sites_what_it_is() -> None:
    tables, numbers = sums_of([[10, 0], [5, 5]]), SiteValues(60, {"accuracy": 0.9, "loss": 0.2})
    found = as_measurements({"a": tables, "b": numbers}, "test", PLAIN)
    assert [measurement.site for measurement in found] == ["a", "b", MEAN_OF_SITES]
    assert overall(found, "accuracy") == pytest.approx((20 * 0.75 + 60 * 0.9) / 80)
    assert overall(found, "auroc") == pytest.approx(overall(found[:1] + found[2:], "auroc"))
    assert [m.site for m in as_measurements({"a": tables}, "test", PLAIN)][-1] == "all sites"


# --- The rules of a field -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "allowed", "denied"),
    [
        (Exactly("north"), ["north"], ["south", b"north", 1]),
        (Exactly(1), [1], [2, True, 1.0, "1"]),
        (OneOf(("data",)), ["data"], ["", "datum", None]),
        (Count(10, 10), [10, 40], [0, 15, True, 10.0, -10, 10**10]),
        (Number(3, 0.0, 1.0), [0.0, 0.5, 0.123], [0.1234, 1.001, -0.1, math.nan, math.inf, 1]),
        (Number(-1), [10.0, 0.0], [5.0, 12.3]),
        (FreeText(), ["anything", ["a", "b"]], [1, [1], b"x"]),
        (Empty(), [[]], [["x"], "", None]),
    ],
    ids=lambda rule: str(rule) if not isinstance(rule, list) else "",
)
def test_a_rule_allows_what_it_says(rule: Any, allowed: list[Any], denied: list[Any]) -> None:
    assert all(rule.allows(value) for value in allowed)
    assert not any(rule.allows(value) for value in denied)


# --- The gate itself ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def gate() -> tuple[MessageSchema, SiteUpdate]:
    schemas, context = schemas_of(PLAIN)
    instruction = instruction_for(PLAIN)
    said = reduce_update(honest_update(PLAIN, context, instruction), PLAIN, HOSPITAL)
    return schemas.update(instruction), said


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_number_that_is_not_finite_keeps_a_message_in(value: float, dtype: torch.dtype) -> None:
    from wardround.common.parameters.array_records import to_array_record
    from wardround.common.parameters.schema import schema

    tensor = torch.linspace(-5, 5, 1000).to(dtype)
    expected = MessageSchema(arrays={"model": schema({"w": tensor})})
    check_message(RecordDict({"model": to_array_record({"w": tensor})}), expected, LARGEST)
    tensor[517] = value
    with pytest.raises(GuardError, match="model/w holds NaN or infinity"):
        check_message(RecordDict({"model": to_array_record({"w": tensor})}), expected, LARGEST)


def test_a_message_that_is_too_large_stays(gate: tuple[MessageSchema, SiteUpdate]) -> None:
    schema, said = gate
    with pytest.raises(GuardError, match="larger than the 1000 bytes"):
        check_message(pack_update(said), schema, 1000)


def test_a_message_that_lacks_something_stays(gate: tuple[MessageSchema, SiteUpdate]) -> None:
    schema, said = gate
    content = pack_update(said)
    del content["model"]
    with pytest.raises(GuardError, match="lacks model"):
        check_message(content, schema, LARGEST)


def test_a_record_of_another_kind_stays(gate: tuple[MessageSchema, SiteUpdate]) -> None:
    schema, said = gate
    content = pack_update(said)
    content["facts"] = ArrayRecord()
    with pytest.raises(GuardError, match="facts is not a MetricRecord"):
        check_message(content, schema, LARGEST)


def test_the_error_of_the_gate_holds_nothing_of_the_message(
    gate: tuple[MessageSchema, SiteUpdate],
) -> None:
    schema, said = gate
    named = replace(said, parameters={**said.parameters, "CANARY": torch.zeros(1)})
    with pytest.raises(GuardError) as refused:
        check_message(pack_update(named), schema, LARGEST)
    assert "CANARY" not in str(refused.value)
    with pytest.raises(GuardError) as refused:
        check_message(pack_update(replace(said, site="CANARY")), schema, LARGEST)
    assert "CANARY" not in str(refused.value)


def test_a_refusal_gives_a_sentence_in_a_simulation_only() -> None:
    spoken = pack_refusal(Refusal("north", "policy", "nobody approved it"))
    check_message(spoken, refusal_schema("north", explains_refusals=True), LARGEST)
    with pytest.raises(GuardError):
        check_message(spoken, refusal_schema("north", explains_refusals=False), LARGEST)
    with pytest.raises(GuardError):
        check_message(
            pack_refusal(Refusal("north", "a new word")), refusal_schema("north", False), LARGEST
        )


def test_the_fingerprint_changes_with_every_part_and_not_with_the_order(
    gate: tuple[MessageSchema, SiteUpdate],
) -> None:
    _, said = gate
    base = fingerprint_of(pack_update(said))
    assert base.bytes > sum(t.numel() * 4 for t in said.parameters.values())
    turned = dict(reversed(said.parameters.items()))
    assert fingerprint_of(pack_update(replace(said, parameters=turned))) == base
    name = next(iter(said.parameters))
    moved = {**said.parameters, name: said.parameters[name] + 1}
    for changed in (
        replace(said, parameters=moved),
        replace(said, round=7),
        replace(said, metrics=None),
        replace(said, examinations=30),
    ):
        assert fingerprint_of(pack_update(changed)).sha256 != base.sha256
