"""Messages as they travel: they have the fields of ``operators.proto`` and come back whole."""

import math
import types
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from wardround.common.errors import InputError
from wardround.server.checkpoints.canary import CanaryReport, CanaryRow
from wardround.server.operators import messages
from wardround.server.operators.messages import (
    AboutRun,
    EvidenceRow,
    MeasuredValue,
    ModelPart,
    Nothing,
    Refusal,
    RoundReport,
    RunDetails,
    RunEvent,
    RunRecord,
    Runs,
    RunSummary,
    ServerSummary,
    SitePart,
    Sites,
    SiteSummary,
    SiteValue,
    Submission,
    Submitted,
    WithdrawalAsked,
    WithdrawalPlanned,
    Withdrawals,
    WithdrawalWaiting,
)
from wardround.server.operators.proto import operators_pb2
from wardround.server.operators.wire import pack, read_question, read_reply
from wardround.server.scheduling import store

KINDS = operators_pb2.DESCRIPTOR.message_types_by_name
SUMMARY = RunSummary(
    run="lung-1",
    study="lung",
    digest="ab" * 32,
    state="waiting for sites",
    message="for south",
    round=2**31,
    rounds=2**32 - 1,
    metric="auroc",
    value=None,
    submitted=1.79e9 + 0.123456,
    started=0.0,
    ended=None,
)
REFUSAL = Refusal("south", "the policy's smallest cell", "training", 3)
REPORT = RoundReport(1, 0, 2.5, 0.75, ("north", "south"), (REFUSAL,))
EVIDENCE = EvidenceRow("intervals", "north", "ill", "auroc", 0.8, 0.7, 0.9, 0.01, None, 40, "so")
ROW = CanaryRow("north", "data", "would fail", "some images cannot be read", "mend them")
CANARY = CanaryReport((ROW, ROW), 20, 10.0, None, 2**40)
DETAILS = RunDetails(
    SUMMARY, ("north",), 2, "as the study says", (REPORT, REPORT), (REFUSAL,), (EVIDENCE,)
)
PLANNED = WithdrawalPlanned(
    "north", "site", 5, 4, 15, 10, (4, 9, 10), 22.5, True, ("so",), {"east": 3}, ("east",), False,
    "lung-2", "ab", ("It leaves.",),
)  # fmt: skip
WAITING = WithdrawalWaiting("north", "patients", 1.79e9, "ab" * 32, "lung-1")
EXAMPLES = (
    Nothing(),
    AboutRun("lung-1"),
    Submission("[study]\nname = 'Lünge'\n", "json", ("north", "south")),
    Submission("x", canary=True),
    Submitted("lung-1", "lung", "ab", 0),
    SUMMARY,
    Runs(()),
    Runs((SUMMARY, SUMMARY)),
    replace(SUMMARY, without=("east", "west")),
    ModelPart("ab" * 32, 4, b"\0\xff"),
    REFUSAL,
    EVIDENCE,
    REPORT,
    DETAILS,
    ROW,
    CANARY,
    replace(DETAILS, canary=CANARY),
    replace(SUMMARY, missed={"east": 3}),
    SitePart("north", 1, 0.0, 2**63, 2**64 - 1),
    SiteValue("north", 0, "validation", None),
    RunRecord(
        DETAILS,
        "[study]",
        "0.1.0",
        (SitePart("north", 1, 1.5, 7, 8),),
        (SiteValue("north", 0, "validation", -0.0),),
        (MeasuredValue("north", 0, "validation", "f1", "tumour", None),),
    ),
    MeasuredValue("north", 1, "test", "f1", "", 0.25),
    RunEvent("note", "running"),
    RunEvent("measured", "finished", "", 3, 3, "dice", 0.5, 1.0, "north", ("north",)),
    SiteSummary("north", 1.0, None, revoked=True, seen=None, connected=False),
    Sites((SiteSummary("north", 1.0, 2.0, revoked=False, seen=3.0, connected=True),)),
    ServerSummary("Demo", "0.1.0", "x:1", 1.0, False, 2, 1, {"queued": 2, "failed": 1}, 5.0),
    WithdrawalAsked("lung-1", "north", patients=True),
    PLANNED,
    replace(PLANNED, seconds=None, first_rounds={}, kept=()),
    WAITING,
    Withdrawals((WAITING, WAITING)),
)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda one: type(one).__name__)
def test_a_message_comes_back_as_it_was(message: object) -> None:
    assert read_reply(type(message), pack(message)) == message


def test_there_is_an_example_of_every_message() -> None:
    assert {type(one).__name__ for one in EXAMPLES} == set(KINDS)


def _type_name(hint: Any, field: Any) -> str:
    """Return the type that protobuf has for an attribute."""
    if is_dataclass(hint):
        return str(getattr(hint, "__name__", ""))
    if hint is str and field.enum_type is not None:
        return str(field.enum_type.name)
    is_large = field.name.startswith("bytes_")
    return {
        str: "string",
        float: "double",
        bool: "bool",
        int: "uint64" if is_large else "uint32",
        bytes: "bytes",
    }[hint]


def _declared(field: Any) -> str:
    types_by_number = {1: "double", 4: "uint64", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}
    if field.enum_type is not None:
        return str(field.enum_type.name)
    if field.message_type is not None:
        return str(field.message_type.name)
    return types_by_number[field.type]


@pytest.mark.parametrize("name", KINDS)
def test_a_dataclass_has_the_fields_of_its_protobuf_message(name: str) -> None:
    kind, declared = getattr(messages, name), KINDS[name].fields_by_name
    hints = get_type_hints(kind)
    assert [field.name for field in fields(kind)] == list(declared)
    for attribute, field in declared.items():
        hint = hints[attribute]
        if get_origin(hint) is tuple:
            assert field.is_repeated
            hint = get_args(hint)[0]
        elif get_origin(hint) is dict:
            inside = field.message_type.fields_by_name
            assert field.message_type.GetOptions().map_entry
            assert [_declared(inside[one]) for one in ("key", "value")] == ["string", "uint32"]
            continue
        elif get_origin(hint) is types.UnionType:
            assert field.has_presence
            hint = get_args(hint)[0]
        else:
            assert not field.is_repeated
            assert field.has_presence == is_dataclass(hint)
        assert _declared(field) == _type_name(hint, field), attribute


def test_every_state_of_the_queue_has_a_value_in_the_enum() -> None:
    values = set(operators_pb2.RunState.keys())
    for state in (store.QUEUED, store.RUNNING, store.STOPPED, store.FINISHED, store.FAILED):
        assert f"RUN_STATE_{state.upper()}" in values


def test_a_word_that_is_in_no_enum_does_not_travel() -> None:
    with pytest.raises(ValueError, match="YAML"):
        pack(Submission("x", "yaml"))
    with pytest.raises(TypeError, match="is no message"):
        pack({"run": "x"})


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"RunSummary is not as it should be \(value"):
        read_reply(RunSummary, pack(replace(SUMMARY, value=math.nan)))


@pytest.mark.parametrize(
    ("kind", "message", "field"),
    [
        (RunDetails, operators_pb2.RunDetails(), "summary"),
        (RunEvent, operators_pb2.RunEvent(state="RUN_STATE_RUNNING"), "kind"),
        (Runs, operators_pb2.Runs(runs=[operators_pb2.RunSummary()]), r"runs\.0\.state"),
    ],
)
def test_a_reply_without_what_it_must_have_is_refused(kind, message, field: str) -> None:
    with pytest.raises(InputError, match=rf"is not as it should be \(.*{field}"):
        read_reply(kind, message.SerializeToString())


_TAG_OF_FIELD_2, _TAG_OF_FIELD_15 = b"\x10", b"\x7a"


def test_a_question_of_a_newer_client_is_refused_and_a_newer_servers_reply_read() -> None:
    more = _TAG_OF_FIELD_15 + b"\x01y"
    with pytest.raises(InputError, match="AboutRun has fields that are unknown here"):
        read_question(AboutRun, pack(AboutRun("x")) + more)
    assert read_reply(Submitted, pack(Submitted("r", "s", "d", 1)) + more).ahead == 1


def test_an_enums_value_that_is_unknown_is_refused() -> None:
    with pytest.raises(InputError, match=r"Submission is not as it should be \(form"):
        read_question(Submission, pack(Submission("x")) + _TAG_OF_FIELD_2 + b"\x63")


def test_a_study_without_a_form_is_toml() -> None:
    asked = operators_pb2.Submission(text="x").SerializeToString()
    assert read_question(Submission, asked) == Submission("x", "toml")
