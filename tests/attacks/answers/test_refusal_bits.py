"""Two hospitals that differ by one patient answer alike: the same words, the same headers."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flwr.app import RecordDict
from tests.support.hospitals.hospital import ask, instruction_for, write_policy
from tests.support.hospitals.two_consortia import private_study, write_hospital

from wardround.client.app import close_sessions
from wardround.common.flower.messages.content import configs_of, metrics_of
from wardround.common.messages.instructions import DESCRIBE, TRAIN, Instruction, new_run
from wardround.common.messages.replies import unpack_refusal

pytestmark = pytest.mark.attacks
STUDY = private_study("north")
COHORT = 20  # the default of a policy
PARTS = {"validation": slice(0, 20), "test": slice(20, 40)}
FAULTS = {
    "no label": "extra,,0.1,0.2",
    "a label that is none": "extra,c,0.1,0.2",
    "a covariate that is no number": "extra,a,high,0.2",
    "no name": ",a,0.1,0.2",
    "too many cells": "extra,a,0.1,0.2,0.3",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """All that a message says beside its noised arrays; a hash stands for any."""

    word: str
    fields: tuple[tuple[str, str], ...]


def said(content: RecordDict) -> Answer:
    refusal = unpack_refusal(content)
    fields = {
        f"{name}/{key}": str(value)
        for name, record in (*configs_of(content).items(), *metrics_of(content).items())
        for key, value in record.items()
    }
    mark = fields.get("header/ledger-head")
    if mark is not None:
        assert len(mark) == 64
        fields["header/ledger-head"] = "a hash"
    for name in ("mark", "signature"):  # of the audit log: each site's key makes others
        if f"audit/{name}" in fields:
            fields[f"audit/{name}"] = f"{len(fields[f'audit/{name}'])} digits"
    # Signed with the site's own key, over the noised update and the log's mark.
    for name in ("update", "audit", "key", "signature"):
        if f"lineage/{name}" in fields:
            fields[f"lineage/{name}"] = f"{len(fields[f'lineage/{name}'])} digits"
    return Answer("" if refusal is None else refusal.code, tuple(sorted(fields.items())))


def uncounted(answers: list[Answer]) -> list[Answer]:
    """Return answers without the number of messages that the site has answered so far."""
    return [
        replace(one, fields=tuple(pair for pair in one.fields if pair[0] != "audit/entries"))
        for one in answers
    ]


def rows_of(folder: Path) -> list[str]:
    return (folder / "manifest.csv").read_text().splitlines()


def write_rows(folder: Path, rows: list[str]) -> None:
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


def hospital(parent: Path, patients: int = 260) -> Path:
    """Write a hospital with so many training patients, 20 to choose a model by and 20 to test on.

    Where a part had none, a site would not even begin to work before the mend.
    """
    folder = write_hospital(parent / "north", STUDY, ledger=None)
    header, *rows = rows_of(folder)
    train = [f"{row},train" for row in rows[40:]]
    others = [f"{row},{part}" for part, some in PARTS.items() for row in rows[some]]
    write_rows(folder, [f"{header},split", *others, *train[:patients]])
    return folder


def conversation(
    folder: Path, rounds: int = 2, meanwhile: Callable[[Path], None] | None = None
) -> list[Answer]:
    """Ask a site as a server does, and return what it said.

    Args:
        meanwhile: Happens at the hospital after the first round; it starts anew then.
    """
    run, answers = "a" * 32, []
    try:
        answers.append(said(ask(folder, DESCRIBE, study=STUDY)))
        # Once: training moves the numbers of the network that the sites of a process share.
        model = parameters_of_the_study(folder.parent)
        for number in range(1, rounds + 1):
            order = Instruction(STUDY.digest, run, number, model)
            answers.append(said(ask(folder, TRAIN, order, STUDY)))
            if number == 1 and meanwhile is not None:
                meanwhile(folder)
                close_sessions()
    finally:
        close_sessions()
    return answers


def parameters_of_the_study(parent: Path) -> dict[str, object]:
    """Return a model of the study, which a whole hospital elsewhere knows."""
    known = parent.parent / "known" / "north"
    if not known.exists():
        hospital(known.parent)
    given = instruction_for(known, 1, STUDY).parameters
    return {name: tensor.clone() for name, tensor in given.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    answers = conversation(hospital(tmp_path_factory.mktemp("expected") / "one"))
    assert [answer.word for answer in answers] == [""] * 3, "it takes part"
    return answers


@pytest.mark.parametrize("patients", [0, 1, COHORT - 1, COHORT, 259])
def test_how_many_patients_there_are_decides_nothing_that_leaves(
    patients: int, tmp_path: Path, expected: list[Answer]
) -> None:
    assert conversation(hospital(tmp_path / "other", patients)) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_a_patient_whose_row_cannot_be_used_counts_as_nobody(
    fault: str, tmp_path: Path, expected: list[Answer]
) -> None:
    folder = hospital(tmp_path / "other")
    write_rows(folder, [*rows_of(folder), f"{FAULTS[fault]},train"])
    assert conversation(folder) == expected


def test_a_patient_in_two_splits_or_in_none_changes_no_other_patients_place(
    tmp_path: Path, expected: list[Answer]
) -> None:
    folder = hospital(tmp_path / "other")
    write_rows(folder, [*rows_of(folder), "q,a,0,0,train", "q,a,0,0,test", "r,a,0,0,"])
    assert conversation(folder) == expected


def withdraw(folder: Path) -> None:
    write_rows(folder, rows_of(folder)[:-1])


def withdraw_below_the_cohort(folder: Path) -> None:
    write_rows(folder, rows_of(folder)[: 40 + COHORT])  # 19 are left


def change_the_cap(folder: Path) -> None:
    approved = f'["{STUDY.digest}"]'
    caps = {"lifetime_epsilon": "2.5", "lifetime_delta": "1e-5", "privacy_required": "true"}
    write_policy(folder, approved=approved, refused_above_the_cap='"round"', **caps)


def spend_elsewhere(folder: Path) -> None:
    """Answer another run, which another server might have ordered."""
    certificate = folder / "keys" / "ca.crt"
    own = certificate.read_text()
    certificate.write_text("another authority")
    order = instruction_for(folder, 1, STUDY)
    assert unpack_refusal(ask(folder, TRAIN, replace(order, run=new_run()), STUDY)) is None
    certificate.write_text(own)


@pytest.mark.parametrize(
    "meanwhile", [withdraw, withdraw_below_the_cohort, change_the_cap, spend_elsewhere]
)
def test_what_happens_at_the_hospital_between_two_rounds_does_not_show_in_the_next(
    meanwhile: Callable[[Path], None], tmp_path: Path, expected: list[Answer]
) -> None:
    answers = conversation(hospital(tmp_path / "other"), meanwhile=meanwhile)
    if meanwhile is spend_elsewhere:  # one message more was answered, and the audit log counts them
        assert uncounted(answers) == uncounted(expected)
    else:
        assert answers == expected


def test_whatever_fails_in_the_work_leaves_as_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.client.session.session import SiteSession
    from wardround.common import errors

    folder, kinds = hospital(tmp_path / "one"), itertools.count()
    raised = [
        errors.DataError("a patient"),
        errors.InputError("a patient"),
        errors.RunError("a patient"),
        errors.ModelError("a patient"),
        errors.GuardError("a patient"),
        ZeroDivisionError("a patient"),
        MemoryError(),
    ]

    def fail(*_: object, **__: object) -> None:
        raise raised[next(kinds)]

    order = instruction_for(folder, 1, STUDY)
    monkeypatch.setattr(SiteSession, "train", fail)
    try:
        words = uncounted([said(ask(folder, TRAIN, order, STUDY)) for _ in raised])
    finally:
        close_sessions()
    assert {one.word for one in words} == {"failed"}
    assert len(set(words[1:])) == 1  # the first is sent before the audit log has an entry to report
