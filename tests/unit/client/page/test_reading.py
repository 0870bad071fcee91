"""What the hospital's page reads from a site folder, daemon or none."""

import json
from pathlib import Path

import pytest
from tests.support.stage import wait_until
from tests.unit.client.page.conftest import PATIENT

from wardround.client.page.errands import Errands
from wardround.client.page.reading import SiteReader, verify_words
from wardround.client.page.regions import regions_of, summary_of
from wardround.client.policy.approvals import decide
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.signing_key import open_key
from wardround.common.study.study import Study


def reader_of(site: Path) -> SiteReader:
    return SiteReader(site, Errands(site), may_decide=False)


def test_it_works_while_no_daemon_runs_and_says_so(site: Path) -> None:
    view = reader_of(site).look()
    assert view.daemon is None
    assert "site start" in view.no_daemon
    assert summary_of(view).startswith("No daemon runs here")
    assert "1 study waits" in summary_of(view)


def test_it_shows_what_waits_what_left_and_what_is_allowed(
    site: Path, private_study: Study
) -> None:
    view = reader_of(site).look()
    assert [one.digest for one in view.waiting] == [private_study.digest]
    assert (view.audit.entries, view.audit.answers, view.audit.refusals) == (2, 1, 1)
    assert view.audit.bytes == 1_234
    assert view.audit.last[0].what == "refusal"
    assert dict(view.policy)["privacy budget"].startswith("at most epsilon 8 ")
    assert view.budget.accounts == ()


def test_what_was_imported_or_corrected_is_no_refusal(site: Path) -> None:
    log = AuditLog(site / "audit", open_key(site / "keys"), durable=False)
    for kind in ("import", "correction"):
        log.append(Event(kind=kind, verdict="allow: 3 of them, 5 in all"))
    audit = reader_of(site).look().audit
    assert (audit.entries, audit.answers, audit.refusals) == (4, 1, 1)


def test_the_chain_is_verified_beside_and_a_changed_log_is_said_aloud(site: Path) -> None:
    reader = reader_of(site)
    reader.look()
    wait_until(lambda: reader.look().audit.verified)
    assert reader.look().audit.verified.startswith("Verified: 2 entries")
    log = site / "audit" / "log.jsonl"
    log.write_text(log.read_text().replace("1234", "9999"))
    words, is_broken = verify_words(site)
    assert is_broken
    assert words.startswith("NOT VERIFIED: ")
    broken = reader_of(site)
    wait_until(lambda: broken.look().audit.verified)
    assert "not as it was written" in summary_of(broken.look())
    assert "NOT VERIFIED" in regions_of(broken.look())["left"]


def test_a_damaged_log_or_ledger_is_said_and_the_rest_still_shows(site: Path) -> None:
    (site / "audit" / "log.jsonl").write_text("nonsense\n")
    (site / "ledger").mkdir()
    (site / "ledger" / "ledger.jsonl").write_text("nonsense\n")
    view = reader_of(site).look()
    assert view.audit.trouble
    assert view.budget.trouble
    assert view.waiting


def test_a_decision_shows_at_the_next_look(site: Path, private_study: Study) -> None:
    reader = reader_of(site)
    reader.look()
    decide(site, private_study.digest, "rejected")
    view = reader.look()
    assert view.waiting == ()
    assert (view.decided[0].verdict, view.decided[0].name) == ("rejected", "table")


def test_a_fetched_model_shows_and_a_hostile_folder_of_models_does_not_hurt(site: Path) -> None:
    for name, text in {
        "one": json.dumps(
            {"study": {"study": {"name": "lungs"}}, "study_digest": "a" * 64, "round": 7}
        ),
        "two": "[" * 100_000,
        "three": "{}",
    }.items():
        (site / "models" / name).mkdir(parents=True)
        (site / "models" / name / "contract.json").write_text(text)
    (model,) = reader_of(site).look().models
    assert (model.study, model.round) == ("lungs", 7)


def test_no_patient_is_on_the_page(site: Path) -> None:
    assert PATIENT not in "".join(regions_of(reader_of(site).look()).values())


@pytest.mark.parametrize("name", ["policy.toml", "manifest.csv", "audit/log.jsonl"])
def test_a_file_that_is_gone_ends_nothing(site: Path, name: str) -> None:
    (site / name).unlink()
    assert regions_of(reader_of(site).look())["summary"]
