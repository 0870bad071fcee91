"""Messages that nobody honest sends: a good one, with a few things in it changed."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import strategies as st
from tests.support.scripted_sites import initial, measured, study_with

from wardround.common.errors import WardroundError
from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import (
    Instruction,
    new_run,
    pack_instruction,
    unpack_instruction,
)
from wardround.common.messages.replies import (
    Refusal,
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    pack_evaluation,
    pack_refusal,
    pack_site_info,
    pack_update,
    unpack_evaluation,
    unpack_refusal,
    unpack_site_info,
    unpack_update,
)
from wardround.common.metrics.noised.encoding import NoisedSums, length_of
from wardround.common.metrics.sums import SiteValues
from wardround.common.parameters.array_records import to_array_record
from wardround.common.study.study import Study

Record = ArrayRecord | ConfigRecord | MetricRecord
Mutation = Callable[[RecordDict], None]

STUDY = study_with()
UNPACK: list[Callable[[RecordDict], object]] = [
    unpack_site_info,
    unpack_refusal,
    unpack_instruction,
    lambda content: unpack_update(content, STUDY),
    lambda content: unpack_evaluation(content, STUDY),
]
# What a spoiler may raise over an array that another one has spoilt.
UNMAKEABLE = (ValueError, TypeError, RuntimeError, MemoryError, WardroundError)
INTEGERS = (0, -1, -50, 1, 2**31, 2**53, 2**63 - 1, -(2**63), 10**400)
FLOATS = (float("inf"), float("-inf"), float("nan"), 1e308, -1e308, -0.5, 1.5, 1e-320, 7.0)
TEXTS = ("", "12", "nan", "a\x1b[2J\x1b]52;c;aGk=\x07", "ab\u202ecd", "\ud800", "\n", "x" * 10_000)
NUMBERS = [*INTEGERS, *FLOATS, [1, 2], [1.5], list[int]()]
SETTINGS = [*NUMBERS, *TEXTS, b"\x00\xff", True, ["a\x1b[2J"], ["x"] * 5_000]
NAMES = ["header", "facts", "metrics", "values", "model", "auxiliary", "refusal", "instruction"]
NAMES += ["progress", "pixels", "noised"]
KEYS = ["site", "digest", "run", "round", "attempt", "examinations", "updates", "seconds"]
KEYS += ["training-loss", "ledger", "ledger-head", "notes", "base", "code", "reason", "wardround"]
KEYS += ["split", "surfaces", "kept-round", "validate", "personal", "counted-round", "loss"]
KEYS += ["ledger-counter", "accuracy", "auroc", "positives", "confusion", "pixels", "a\x1b[2J"]


def update_of(study: Study = STUDY, *, values: bool = False) -> RecordDict:
    metrics = SiteValues(10, {"loss": 0.5}) if values else measured(study, 4, 0.5)
    update = SiteUpdate(
        "evil",
        study.digest,
        1,
        0,
        initial(study),
        10,
        1,
        0.1,
        0.2,
        metrics,
        run=new_run(),
        ledger=ChainHead(3, "f" * 64),
    )
    return pack_update(update)


def good_messages() -> list[RecordDict]:
    """Return one message of each kind; each may be changed."""
    run, noised = new_run(), NoisedSums(np.zeros(length_of(STUDY)))
    parameters = initial(STUDY)
    return [
        update_of(),
        update_of(values=True),
        pack_evaluation(SiteEvaluation("evil", STUDY.digest, 1, measured(STUDY, 4, 0.5), 0.1, run)),
        pack_site_info(SiteInfo("evil", "1", STUDY.digest, 10, ("a note",), 0.5)),
        pack_refusal(Refusal("evil", "data", "row 5 is empty")),
        pack_instruction(Instruction(STUDY.digest, run, 1, parameters, auxiliary=parameters)),
        pack_evaluation(SiteEvaluation("evil", STUDY.digest, 1, noised, 0.0, run)),
    ]


def set_field(record: str, key: str, value: object) -> Mutation:
    def change(content: RecordDict) -> None:
        found = content.get(record)
        if isinstance(found, (ConfigRecord, MetricRecord)):
            with suppress(TypeError):  # this kind of record cannot carry it, so nobody sends it
                found[key] = value  # type: ignore[assignment]

    return change


def drop_field(record: str, place: int) -> Mutation:
    def change(content: RecordDict) -> None:
        if found := content.get(record):
            del found[[*found][place % len(found)]]

    return change


def set_record(name: str, record: Record) -> Mutation:
    def change(content: RecordDict) -> None:
        content.pop(name, None)  # Flower warns of what is overwritten
        content[name] = record

    return change


def drop_record(name: str) -> Mutation:
    return lambda content: content.pop(name, None) and None


def spoil_array(record: str, place: int, how: Callable[[Array], Array]) -> Mutation:
    def change(content: RecordDict) -> None:
        found = content.get(record)
        if isinstance(found, ArrayRecord) and found:
            key = [*found][place % len(found)]
            with suppress(*UNMAKEABLE):  # of an array that is spoilt already
                found[key] = how(found[key])

    return change


def filled(value: float) -> Callable[[Array], Array]:
    """Return what fills an array of floats with one number, and others with its whole part."""

    def fill(array: Array) -> Array:
        kind = np.dtype(array.dtype)
        number = value if kind.kind == "f" or not np.isfinite(value) else max(-(2**31), value // 1)
        number = number if kind.kind == "f" or np.isfinite(number) else -1
        with np.errstate(all="ignore"):
            made = np.full(array.shape, number).astype(kind)
        return to_array_record({"a": torch.from_numpy(made)})["a"]

    return fill


SPOILERS: list[Callable[[Array], Array]] = [
    lambda a: Array("float64", a.shape, a.stype, a.data),
    lambda a: Array("complex128", a.shape, a.stype, a.data),
    lambda a: Array("O", a.shape, a.stype, a.data),
    lambda a: Array("\x1b[2J" * 1000, a.shape, a.stype, a.data),
    lambda a: Array(a.dtype, (-1,), a.stype, a.data),
    lambda a: Array(a.dtype, (2**62, 2**62), a.stype, a.data),
    lambda a: Array(a.dtype, (), a.stype, a.data),
    lambda a: Array(a.dtype, (1,) * 200, a.stype, a.data),
    lambda a: Array(a.dtype, a.shape, "pickle", a.data),
    lambda a: Array(a.dtype, a.shape, a.stype, b""),
    lambda a: Array(a.dtype, a.shape, a.stype, a.data[:-1]),
    lambda a: Array(a.dtype, a.shape, a.stype, a.data + b"\x00"),
    lambda a: Array(a.dtype, a.shape, a.stype, b"\x93NUMPY\x01\x00\xff\xff" + a.data[10:]),
    lambda a: to_array_record({"a": torch.zeros(7)})["a"],
    lambda a: to_array_record({"a": torch.zeros(0)})["a"],
    lambda a: to_array_record({"a": torch.zeros(a.shape, dtype=torch.bool)})["a"],
    *[filled(value) for value in (0.0, -1.0, 1e38, 3e9, -50.0, float("inf"), float("nan"))],
]
RECORDS: list[Callable[[], Record]] = [
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    lambda: MetricRecord({"examinations": 10**400}),
    lambda: MetricRecord({"examinations": 10, "loss": float("nan")}),
    lambda: MetricRecord({"examinations": 10, "accuracy": [1.0, 2.0]}),
    lambda: MetricRecord({"examinations": 10, "x\x1b[2J" * 1000: 1.0}),
    lambda: ConfigRecord({"code": 7, "site": "a\x1b[2J"}),
    lambda: ConfigRecord({"code": "late", "site": "x" * 10_000, "reason": "y\x1b[2J" * 10_000}),
    lambda: to_array_record({"pixels": torch.zeros(100)}),
    lambda: to_array_record({f"\x1b[2J{i}": torch.zeros(2) for i in range(500)}),
]

names, places = st.sampled_from(NAMES), st.integers(0, 8)
numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.sampled_from(NUMBERS))
settings_values = st.one_of(
    st.sampled_from(SETTINGS), st.text(max_size=40), st.integers(-(2**63), 2**63 - 1), st.floats()
)
mutations: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(set_field, st.sampled_from(["header", "refusal", "instruction", "progress"]),
              st.sampled_from(KEYS), settings_values),
    st.builds(set_field, st.sampled_from(["facts", "values"]), st.sampled_from(KEYS), numbers),
    st.builds(drop_field, names, places),
    st.builds(drop_record, names),
    st.builds(set_record, names, st.sampled_from(RECORDS).map(lambda make: make())),
    st.builds(spoil_array, st.sampled_from(["model", "metrics", "auxiliary", "noised"]), places,
              st.sampled_from(SPOILERS)),
)  # fmt: skip
attacks = st.lists(mutations, min_size=1, max_size=4)


def refusals_of(content: RecordDict) -> list[str]:
    """Read a message as each kind, and return why it is none.

    Raises:
        AssertionError: A reason cannot go into a log.
    """
    refusals = []
    for unpack in UNPACK:
        try:
            unpack(content)
        except WardroundError as error:
            refusals.append(str(error))
    assert all(is_plain(refusal) for refusal in refusals), refusals
    return refusals


def is_plain(text: str, longest: int = 600) -> bool:
    """Return whether a text can go into a log: short, and nothing in it moves a cursor."""
    return len(text) <= longest and text.isprintable()
