"""No server fills a site's audit log with what it is refused."""

from pathlib import Path

import pytest

from wardround.client.egress import repeated_refusals
from wardround.client.egress.repeated_refusals import due
from wardround.common.security.audit_log import Event

SITE = Path("north")
MANY = 5_000


@pytest.fixture(autouse=True)
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_refusals, "_COUNTED", {})


def written(events: list[Event], site: Path = SITE) -> list[str]:
    return [one.verdict for event in events if (one := due(site, event)) is not None]


def refused(study: str = "", verdict: str = "deny: approval") -> Event:
    return Event(kind="refusal", study=study, verdict=verdict)


def test_messages_that_are_none_are_counted() -> None:
    lines = written([refused(verdict="deny: input")] * MANY)
    assert len(lines) == 13  # 1, 2, 4 ... 4096
    assert lines[-1] == "deny: input (4096 times)"


def test_new_studies_without_end_are_counted_together() -> None:
    lines = written([refused(f"{number:064x}") for number in range(MANY)])
    assert len(lines) <= 256 + 13
    assert lines[-1] == "deny: approval (4096 times, for one study or another)"


def test_a_study_that_waits_is_counted_for_itself_and_anew_once_it_was_answered() -> None:
    study = "a" * 64
    assert written([refused(study)] * 3) == ["deny: approval", "deny: approval (2 times)"]
    assert written([Event(kind="update", study=study)]) == ["allow"]
    assert written([refused(study)]) == ["deny: approval"]


def test_another_site_of_the_process_has_a_count_of_its_own() -> None:
    written([refused()] * MANY)
    assert written([refused()], Path("south")) == ["deny: approval"]


def test_what_is_no_refusal_is_always_written() -> None:
    assert len(written([Event(kind="update", study="a" * 64)] * 50)) == 50
