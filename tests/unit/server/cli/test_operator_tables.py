"""What operators read of their sites."""

import io
import time

from rich.console import Console

from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.cli.operator_tables import (
    run_page,
    runs_table,
    sites_table,
)
from wardround.server.operators.messages import (
    Refusal,
    RoundReport,
    RunDetails,
    RunEvent,
    RunSummary,
    SiteSummary,
)
from wardround.server.operators.run_events import event_words

_DAY_SECONDS = 86_400.0


def listed(expires_in_seconds: float, revoked: bool = False) -> str:
    now = time.time()
    site = SiteSummary("north", now, now + expires_in_seconds, revoked, now, connected=False)
    said = io.StringIO()
    Console(file=said, width=160).print(sites_table([site]))
    return said.getvalue()


def test_a_certificate_that_has_expired_is_called_so() -> None:
    assert "expired" in listed(-_DAY_SECONDS)
    assert "expired" not in listed(_DAY_SECONDS)


def test_a_site_that_was_revoked_is_called_so_and_not_expired() -> None:
    assert "revoked" in listed(-_DAY_SECONDS, revoked=True)
    assert "expired" not in listed(-_DAY_SECONDS, revoked=True)


def test_a_value_that_did_not_come_has_its_reason_beside_it() -> None:
    summary = RunSummary("r-1", "r", "d", "running", "", 2, 2, "auroc", None, 0.0, None, None)
    rounds = tuple(RoundReport(n, n - 1, 1.0, value, ("north",), ()) for n, value in ((1, 0.7),))
    said = io.StringIO()
    Console(file=said, width=160).print(*run_page(RunDetails(summary, (), 1, "", rounds, ())))
    assert "no value" not in said.getvalue()
    rounds = (*rounds, RoundReport(2, 1, 1.0, None, ("north",), ()))
    Console(file=said, width=160).print(*run_page(RunDetails(summary, (), 1, "", rounds, ())))
    assert "no value: the sites' policies let no metric out" in " ".join(said.getvalue().split())


def test_no_text_of_a_site_acts_on_an_operators_screen() -> None:
    forged = "north[bold]\x1b[2J\x1b]52;c;cm0=\x07\u202e\nround 9/9 in 1.0 s"
    event = RunEvent("refusal", "running", forged, round=1, site=forged)
    assert event_words(event).isprintable()
    site = SiteSummary(forged, 0.0, None, revoked=False, seen=None, connected=False)
    summary = RunSummary(forged, forged, forged, forged, forged, 1, 2, forged, 0.5, 0.0, None, None)
    evidence = tuple(
        EvidenceRow(pack, forged, forged, forged, note=forged) for pack in ("", "intervals", forged)
    )
    refusals = (Refusal(forged, forged, forged, 1),)
    details = RunDetails(summary, (forged,), 1, forged, (), refusals, evidence)
    said = io.StringIO()
    console = Console(file=said, width=160)
    for part in (sites_table([site]), runs_table([summary]), *run_page(details)):
        console.print(part)
    assert all(line.isprintable() for line in said.getvalue().split("\n"))
    assert "[bold]" in said.getvalue()
