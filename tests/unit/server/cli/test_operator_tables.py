"""What operators read of their sites."""

import io
import time

from rich.console import Console

from wardround.server.cli.operator_tables import sites_table
from wardround.server.operators.messages import SiteSummary

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
