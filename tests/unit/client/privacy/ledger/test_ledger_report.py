"""The report of the privacy ledger, for an auditor."""

import json
from pathlib import Path

import pytest
from tests.support.ledger_folder import CAPS, OTHER, PLAN, STUDY, assign, charge, ledger_path

from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.entries import Admitted, Opened
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.report import report_ledger, to_csv, to_json
from wardround.common.privacy.accounting import Spend, epsilon_of


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        for study, run in ((STUDY, "run-1"), (OTHER, "run-2")):
            assignment = assign(ledger, study, run)
            ledger.admit(assignment, PLAN, 0.7, CAPS)
            reservation = ledger.reserve(charge(assignment, 1), CAPS)
            ledger.reserve(charge(assignment, 1, 1), CAPS)
            ledger.release(reservation, "1" * 64)
    return tmp_path


def test_the_report_says_all_that_an_auditor_needs_and_can_be_recomputed(reported: Path) -> None:
    report = json.loads(to_json(report_ledger(read_ledger(reported).entries)))
    assert report["unit"] == "patient"
    assert report["adjacency"] == "one patient added or removed"
    assert report["accountant"].startswith("PLD (dp-accounting ")
    (dataset,) = report["datasets"]
    assert (dataset["cap"], dataset["delta"]) == (8.0, 1e-5)
    assert [run["reservations"] for run in dataset["runs"]] == [2, 2]
    assert [run["released"] for run in dataset["runs"]] == [1, 1]
    assert [run["clip_norm"] for run in dataset["runs"]] == [0.7, 0.7]
    spends = [
        Spend(run["sampling_rate"], run["noise_multiplier"], run["steps"])
        for run in dataset["runs"]
    ]
    assert dataset["epsilon"] == pytest.approx(epsilon_of(spends, dataset["delta"]), abs=1e-3)
    assert dataset["epsilon"] == pytest.approx(_from_opacus(spends, 1e-5), abs=0.1)
    assert dataset["remaining"] == pytest.approx(8.0 - dataset["epsilon"])


def _from_opacus(spends: list[Spend], delta: float) -> float:
    """Return an independent accountant's epsilon."""
    opacus = pytest.importorskip("opacus.accountants")
    accountant = opacus.PRVAccountant()
    accountant.history = [(s.noise_multiplier, s.sampling_rate, s.steps) for s in spends]
    return float(accountant.get_epsilon(delta))


def test_the_table_has_a_row_a_run_and_one_for_all(reported: Path) -> None:
    lines = to_csv(report_ledger(read_ledger(reported).entries)).splitlines()
    names = lines[0].split(",")
    assert {"unit", "adjacency", "accountant", "delta", "cap", "remaining"} <= set(names)
    assert {"noise_multiplier", "sampling_rate", "steps", "clip_norm", "epsilon"} <= set(names)
    assert len(lines) == 4
    assert ",all,all," in lines[-1]


def test_a_run_that_reserved_nothing_stands_in_the_report(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        ledger.admit(assign(ledger), PLAN, 1.0, CAPS)
    (dataset,) = report_ledger(read_ledger(tmp_path).entries).datasets
    assert dataset.epsilon == 0.0
    assert [run.steps for run in dataset.runs] == [0]


def test_an_unbounded_spend_is_exported_as_a_word(tmp_path: Path) -> None:
    caps = Caps(1e9, 1e-5, 1e9)
    bare = Spend(0.05, 0.0, 5)
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, bare, 1.0, caps)
        ledger.reserve(charge(assignment, 1, spend=bare), caps)
        assert ledger.spent(1e-5) == float("inf")
    text = to_json(report_ledger(read_ledger(tmp_path).entries))
    assert json.loads(text)["datasets"][0]["epsilon"] == "infinite"


def test_the_first_entry_names_the_ledger_and_admissions_keep_their_caps(reported: Path) -> None:
    facts = [entry.fact for entry in read_ledger(reported).entries]
    assert isinstance(facts[0], Opened)
    assert facts[0].format == 2
    admitted = [fact for fact in facts if isinstance(fact, Admitted)]
    assert [fact.lifetime_epsilon for fact in admitted] == [8.0, 8.0]


def test_an_auditor_can_check_the_file_with_the_few_lines_of_the_documentation(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).resolve().parents[5] / "docs" / "concepts" / "ledger.md"
    lines = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(written)
    exec(compile(lines, "docs/concepts/ledger.md", "exec"), {})
    path = ledger_path(written)
    path.write_bytes(path.read_bytes().replace(b'"round":3', b'"round":4'))
    with pytest.raises(AssertionError):
        exec(compile(lines, "docs/concepts/ledger.md", "exec"), {})
