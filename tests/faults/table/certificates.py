"""Faults: a site's certificate expires during a run."""

import time
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding
from tests.faults.stage import ROUNDS, SITES, Stage, refusals_of, wait_until
from tests.faults.table.fault import (
    FIRST,
    RENEWS,
    SAME,
    SECOND,
    SENDS,
    THIRD,
    TRAINS,
    Fault,
    trained_once_a_round,
)

from wardround.client.site.credentials import TLS_CERTIFICATE, TLS_KEY
from wardround.client.site.folder import KEY_FOLDER
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.security.tls_key_pair import read_certificate, read_private_key
from wardround.server.database import transaction
from wardround.server.identity.membership import SCHEMA, add_certificate
from wardround.server.identity.pki import SITE, open_authority
from wardround.server.operators.messages import RunDetails, SiteSummary

_SHORT, _LONG = timedelta(seconds=15), timedelta(days=90)
_NOTICED_SECONDS = 4.0  # until the daemon has seen that its certificate is another


def certificate_is_renewed(stage: Stage) -> RunDetails:
    """Let a certificate expire after the daemon has got another, both while it trains."""
    stage.arm("no answer", RENEWS, 0, SECOND, name="renewal")
    stage.arm("hold", TRAINS, 2, SECOND)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    _give_certificate(stage, _SHORT)
    expires = _expires(stage)
    stage.disarm("renewal")
    wait_until(lambda: _expires(stage) > expires)
    assert datetime.now(UTC) < expires, "too slow: it had expired before it could be renewed"
    _sleep_until(expires)
    stage.go()
    details = stage.finish_as_simulated(run)
    assert not refusals_of(details), refusals_of(details)
    trained_once_a_round(stage, SECOND, ROUNDS)
    return details


def certificate_is_not_renewed(stage: Stage) -> RunDetails:
    """Let a certificate expire whose daemon is never answered when it asks for another."""
    stage.arm("no answer", RENEWS, 0, SECOND, name="renewal")
    stage.arm("hold", SENDS, 2)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    _give_certificate(stage, _SHORT)
    _sleep_until(_expires(stage))
    stage.go()
    try:
        details = stage.finish(run)
        wait_until(lambda: not _as_listed(stage).connected)
        assert (_as_listed(stage).expires or 0.0) < time.time(), "the operator is not told"
    finally:
        _give_certificate(stage, _LONG)
        stage.disarm("renewal")
    counted = {report.round: set(report.sites) for report in details.history}
    assert counted[1] == set(SITES)
    for number in range(2, ROUNDS + 1):
        assert counted[number] == {FIRST, THIRD}, f"round {number} counted {counted[number]}"
    assert (2, SECOND) in refusals_of(details), "the run does not name it"
    stage.await_sites()
    return details


def _as_listed(stage: Stage) -> SiteSummary:
    """Return what the operator's list says of the second site."""
    with stage.line() as line:
        (listed,) = [one for one in line.sites().sites if one.site == SECOND]
    return listed


def _give_certificate(stage: Stage, life: timedelta) -> None:
    """Issue another certificate to the second site, and wait until its daemon shows it."""
    server, keys = stage.federation.server, stage.site(SECOND) / KEY_FOLDER
    key = read_private_key(keys / TLS_KEY).public_key()
    certificate = open_authority(server).issue(SITE, SECOND, key, life)
    with transaction(server, SCHEMA) as connection:
        connection.execute("DELETE FROM certificates WHERE site = ?", (SECOND,))
        add_certificate(connection, SECOND, certificate, None)
    replace_file(keys / TLS_CERTIFICATE, certificate.public_bytes(Encoding.PEM), READABLE)
    time.sleep(_NOTICED_SECONDS)


def _expires(stage: Stage) -> datetime:
    return read_certificate(stage.site(SECOND) / KEY_FOLDER / TLS_CERTIFICATE).not_valid_after_utc


def _sleep_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds() + 1.0))


FAULTS = (
    Fault(
        "29",
        "a site's certificate expires during a run; it was renewed in time",
        f"no round is lost; {SAME}",
        certificate_is_renewed,
    ),
    Fault(
        "29b",
        "a site's certificate expires during a run; nobody answers when it asks for another",
        "refused; the run names it, the operator's list shows when it expired; the others go on",
        certificate_is_not_renewed,
    ),
)
