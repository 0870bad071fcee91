"""The link process: Flower's SuperLink behind the two gates.

It holds the post between sites and studies in memory and nothing on disk. Killed, it is started
again by the supervisor: sites go on as soon as they reach it, and a study from its last commit.
"""

import asyncio
import gc
import logging
import secrets
import ssl
import sys
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.files.atomic import make_private_folder
from wardround.common.flower.environment import prepare_flower
from wardround.common.flower.logs import quieten_flower
from wardround.common.runtime.system.processes import end_with_parent
from wardround.server.identity.server_certificate import load_server_tls
from wardround.server.link.address import LINK_FOLDER, LinkAddress, write_address
from wardround.server.link.log_limit import LogLimit
from wardround.server.settings import open_server

logger = logging.getLogger(__name__)
SPOOL_FOLDER = "spool"
_LOOK_SECONDS = 5.0  # how soon a renewed certificate of the server is taken up


def main(arguments: list[str]) -> int:
    """Serve a server folder until the process is told to end; return its exit code."""
    folder = Path(arguments[0])
    log = _start_log()
    end_with_parent()
    try:
        prepare_flower(folder / LINK_FOLDER)
        asyncio.run(_serve(folder, log))
    except WardroundError as error:
        sys.stderr.write(f"{error}\n")  # the log's last words, which the supervisor passes on
        return error.exit_code
    return 0


def _start_log() -> LogLimit:
    """Write a log to standard error that nobody on the network can fill."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    limit = LogLimit()
    for handler in logging.getLogger().handlers:
        handler.addFilter(limit)
    return limit


async def _serve(folder: Path, log: LogLimit) -> None:
    # Flower is imported only now, with its switches set.
    from wardround.common.flower.superlink.http_app import SuperLink
    from wardround.common.flower.superlink.link_state import LinkState
    from wardround.common.flower.superlink.long_polling import Wakeups
    from wardround.common.flower.superlink.object_store import DiskObjectStore
    from wardround.common.security.withdrawal.request import consortium_of
    from wardround.server.identity.certificate_gate import CertificateGate
    from wardround.server.identity.enrolment import enrolment_app
    from wardround.server.identity.peer_certificate import make_server_context
    from wardround.server.identity.pki import CA_CERTIFICATE, CA_FOLDER
    from wardround.server.link.connection_limits import ConnectionLimits, places_for
    from wardround.server.link.finished_models import FinishedModels
    from wardround.server.link.gates import Desks, InnerGate, PublicGate
    from wardround.server.link.listeners import (
        inner_listener,
        open_socket,
        public_listener,
        serve,
    )
    from wardround.server.link.member_lookup import MemberLookup
    from wardround.server.link.withdrawals import Withdrawals

    make_private_folder(folder / LINK_FOLDER)
    settings, tls = open_server(folder).settings, load_server_tls(folder)
    certificates, members = CertificateGate(folder), MemberLookup(folder)
    wakeups = Wakeups()
    state = LinkState(members, DiskObjectStore(folder / LINK_FOLDER / SPOOL_FOLDER), wakeups.notify)
    link, enrolment = SuperLink(state, wakeups), enrolment_app(folder, certificates)
    silence_seconds = settings.silence_seconds
    models = FinishedModels(folder, settings.gives_models)
    authority = (folder / CA_FOLDER / CA_CERTIFICATE).read_bytes()
    withdrawals = Withdrawals(folder, consortium_of(authority))
    desks = Desks(models, withdrawals)
    public = PublicGate(link, members, certificates.check, enrolment, silence_seconds, desks)
    places = places_for(settings.most_connections)
    limits = ConnectionLimits(certificates, places, settings.most_connections_of_a_site)
    outer, inner = open_socket(settings.host, settings.port), open_socket("127.0.0.1", 0)
    address = LinkAddress(inner.getsockname()[1], secrets.token_hex(32))
    context = make_server_context(tls)
    write_address(folder, address)
    listeners = {
        inner_listener(InnerGate(link, state, address.secret, limits.left)): inner,
        public_listener(public, context, limits, silence_seconds): outer,
    }
    gc.collect()
    gc.freeze()  # what is there now stays; connections that ended are then collected sooner
    with quieten_flower(logging.WARNING):  # which its import has set to say everything
        await serve(listeners, lambda: _look_after(folder, context, log))


async def _look_after(folder: Path, context: ssl.SSLContext, log: LogLimit) -> None:
    """Take a renewed server certificate as soon as it is there; open connections stay.

    What the log left out is said now and then.
    """
    seen = load_server_tls(folder)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            tls = load_server_tls(folder)
            if tls.expires != seen.expires:
                context.load_cert_chain(tls.cert_path, tls.key_path)
                seen = tls
        except (WardroundError, OSError, ssl.SSLError) as error:
            logger.warning("the server's certificate cannot be read: %s", error)
        for line in log.report():
            logger.warning("left out: %s", line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
