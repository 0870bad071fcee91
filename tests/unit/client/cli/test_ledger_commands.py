"""``wardround site ledger``: what a hospital sees of its ledger."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.privacy.ledger import budget as ledger_budget
from wardround.client.privacy.ledger import report as ledger_report
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.common.privacy.accounting import Spend

Command = Callable[..., Any]  # conftest's wardround: code, out, err


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that was asked three times and answered twice; a step costs 0.01."""

    def a_hundredth_a_step(spends: object, delta: float) -> float:
        return sum(spend.steps for spend in spends) / 100  # type: ignore[attr-defined]

    for module in (ledger_budget, ledger_report):
        monkeypatch.setattr(module, "epsilon_of", a_hundredth_a_step)
    caps = Caps(8.0, 1e-5, 8.0)
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        assignment = Assignment("a" * 64, "b" * 32, ledger.snapshot(["CANARYPATIENT001"]))
        ledger.admit(assignment, Spend(0.05, 1.3, 600), 0.7, caps)
        for number in (1, 2, 3):
            charge = Charge(assignment, number, 0, Spend(0.05, 1.3, 100))
            reservation = ledger.reserve(charge, caps)
            if number < 3:
                ledger.release(reservation, "1" * 64)
        ledger.commit(ledger.awaiting(assignment)[0])
    return tmp_path


def ledger_path(site: Path) -> Path:
    return site / "ledger" / "ledger.jsonl"


@pytest.mark.parametrize("columns", [80, 160])
def test_show_says_what_is_spent_and_what_is_left(
    wardround: Command, site: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = wardround("site", "ledger", "show", site)
    assert said.code == 0
    words = " ".join(said.out.split())
    assert "all patients: epsilon 3 is spent at delta 1e-05; 5 of 8 is left" in words
    assert "Unit: patient; neighbours: one patient added or removed" in words
    assert "a" * 12 in said.out
    (row,) = [line for line in said.out.split("\n") if line.startswith("aaaa")]
    assert row.split() == (
        ["a" * 12, "b" * 12, "0.05", "1.3", "0.7", "300", "3", "3", "/", "2", "/", "1"]
    )
    assert max(map(len, said.out.split("\n"))) <= columns


def test_show_prints_json(wardround: Command, site: Path) -> None:
    report = json.loads(wardround("site", "ledger", "show", site, "--json").out)
    assert report["counter"] == 8
    assert report["datasets"][0]["remaining"] == 5.0


def test_export_writes_the_report_as_json_or_as_a_table(
    wardround: Command, site: Path, tmp_path: Path
) -> None:
    out = tmp_path / "privacy.json"
    assert wardround("site", "ledger", "export", site, "--out", out).code == 0
    (run,) = json.loads(out.read_text())["datasets"][0]["runs"]
    assert (run["sampling_rate"], run["noise_multiplier"], run["steps"]) == (0.05, 1.3, 300)
    said = wardround("site", "ledger", "export", site, "--csv")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["run"] for row in rows] == ["b" * 32, "all"]
    assert [float(row["epsilon"]) for row in rows] == [3.0, 3.0]


def test_export_to_a_place_that_is_none_is_refused(wardround: Command, site: Path) -> None:
    said = wardround("site", "ledger", "export", site, "--out", site / "absent" / "x.json")
    assert said.code == 2
    assert "Choose another place" in said.err


def test_verify_finds_a_whole_ledger_intact_and_tells_its_head(
    wardround: Command, site: Path
) -> None:
    said = wardround("site", "ledger", "verify", site)
    assert (said.code, said.err) == (0, "")
    assert "is intact: 8 entries" in said.out
    head = said.out.split("head ")[1].strip()
    assert wardround("site", "ledger", "verify", site, "--counter", 8, "--head", head).code == 0
    said = wardround("site", "ledger", "verify", site, "--counter", 7, "--head", head)
    assert said.code == 2
    assert "another ledger" in said.err


def test_verify_refuses_an_edited_and_a_shortened_ledger(wardround: Command, site: Path) -> None:
    path = ledger_path(site)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"steps":100', b'"steps":010'))
    said = wardround("site", "ledger", "verify", site)
    assert said.code == 2
    assert "line 3 of the privacy ledger is not what was written there" in said.err
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert wardround("site", "ledger", "verify", site).code == 0
    said = wardround("site", "ledger", "verify", site, "--counter", 8)
    assert said.code == 2
    assert "7 entries and the server has seen 8" in said.err


def test_a_hash_without_its_counter_is_refused_and_never_called_intact(
    wardround: Command, site: Path
) -> None:
    said = wardround("site", "ledger", "verify", site, "--head", "0" * 64)
    assert said.code == 2
    assert "say how many with --counter" in " ".join(said.err.split())
    assert "intact" not in said.out


def test_looking_repairs_nothing_and_needs_no_lock(wardround: Command, site: Path) -> None:
    path = ledger_path(site)
    path.write_bytes(path.read_bytes() + b'{"fact":{"rese')
    torn = path.read_bytes()
    said = wardround("site", "ledger", "verify", site)
    assert said.code == 0
    assert "last line is unfinished" in said.out
    assert wardround("site", "ledger", "show", site).code == 0
    assert path.read_bytes() == torn
    with PrivacyLedger.open(site, durable=False):
        assert wardround("site", "ledger", "verify", site).code == 0


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_a_folder_without_a_ledger_is_said_to_have_none(
    wardround: Command, tmp_path: Path, command: str
) -> None:
    said = wardround("site", "ledger", command, tmp_path)
    assert said.code == 2
    assert "has no privacy ledger" in said.err
    assert not (tmp_path / "ledger").exists()
