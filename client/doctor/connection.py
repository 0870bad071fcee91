"""The doctor's checks of the way to the server: name, proxy, port, TLS, clock, versions."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from urllib.parse import urlsplit

import wardround
from wardround.client.doctor.check import Check, FaultError, Status, run_check
from wardround.client.site.credentials import (
    bare_context,
    load_site_tls,
    make_client_context,
)
from wardround.client.site.folder import Site
from wardround.client.site.server_client import LinkError, Reply, exchange, open_link
from wardround.common.errors import InputError
from wardround.common.flower.environment import TESTED_FLOWER, is_tested_flower
from wardround.common.messages.replies import understand_each_other
from wardround.common.security.enrolment import STATUS_PATH, ServerStatus
from wardround.common.security.tls_path import proxy_on_the_way

_TIMEOUT_SECONDS = 10.0  # a firewall that drops packets answers nothing at all
_SKEW_SECONDS, _WORST_SKEW_SECONDS = 30, 240  # Flower refuses signatures that are 300 s off
_SOON_DAYS = 21  # renewal begins earlier; who reads this has three weeks to ask why it did not
_HEADER_SECONDS = 2  # the Date header has whole seconds, and the reply travels
_FIRST = "mend what fails above first."
_NAMES = ("proxy", "name", "port", "TLS", "accepted", "clock", "server's versions")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the first connection goes: the server, or a proxy on the way."""

    host: str
    port: int
    is_proxy: bool

    def __str__(self) -> str:
        """Return its name in a sentence; what a proxy's address holds of passwords is left out."""
        return f"{'the proxy ' if self.is_proxy else ''}{self.host}:{self.port}"


def check_connection(site: Site, address: str = "") -> list[Check]:
    """Check the way to the server; what cannot be asked after a failure is said not to be known.

    Args:
        address: Of the server, where it is not that of ``site.toml``.
    """
    if site.settings.server is None:
        fact = "site.toml names no server"
        return [Check("server", "fail", fact, "join one: wardround site join TOKEN")]
    return _Way(site, address or site.settings.server.address).check()


class _Way:
    """The way to one server, walked step by step."""

    def __init__(self, site: Site, address: str) -> None:
        self._site, self._address = site, address
        self._endpoint: Endpoint | None = None
        self._reply: Reply | None = None
        self._status: ServerStatus | None = None

    def check(self) -> list[Check]:
        steps: tuple[Callable[[], str], ...] = (
            self._proxy,
            self._name,
            self._port,
            self._tls,
            self._accepted,
            self._clock,
            self._versions,
        )
        checks: list[Check] = []
        for name, step in zip(_NAMES, steps, strict=True):
            if any(check.status == "fail" for check in checks) and not self._reply:
                checks.append(Check(name, "warn", "not known", _FIRST))
            else:
                checks.append(run_check(name, step))
        return checks

    def _proxy(self) -> str:
        self._endpoint = find_endpoint(self._address)
        with open_link(self._address, bare_context()):
            pass  # a proxy that cannot be used is said here
        if self._endpoint.is_proxy:
            return f"HTTPS_PROXY: connections go through {self._endpoint}"
        return "none is set for this server"

    def _name(self) -> str:
        endpoint = self._known_endpoint()
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            fact = f"{endpoint.host} has no address"
            remedy = "ask the hospital's network team for that name in DNS, or check its spelling."
            raise FaultError(fact=fact, remedy=remedy) from None
        return f"{endpoint.host} is {found[0][4][0]}"

    def _port(self) -> str:
        endpoint = self._known_endpoint()
        try:
            place = (endpoint.host, endpoint.port)
            socket.create_connection(place, timeout=_TIMEOUT_SECONDS).close()
        except ConnectionRefusedError:
            fact = f"{endpoint} refuses connections"
            remedy = "ask the server's operator whether the server runs, and at which port."
            raise FaultError(fact=fact, remedy=remedy) from None
        except OSError:
            fact = f"{endpoint} does not answer"
            remedy = f"ask the hospital's firewall team to allow TCP out to port {endpoint.port}."
            raise FaultError(fact=fact, remedy=remedy) from None
        return f"{endpoint} answers"

    def _tls(self) -> str:
        try:
            tls = load_site_tls(self._site.folder)
            with open_link(self._address, make_client_context(tls)) as client:
                self._reply = exchange(client, STATUS_PATH)
        except (LinkError, InputError) as error:
            fact, _, remedy = str(error).partition(": ")
            raise FaultError(fact=fact, remedy=remedy) from None
        expires = self._reply.expires
        if expires is None:
            return "both sides know each other"
        fact = f"both sides know each other; the server's certificate ends {expires:%Y-%m-%d}"
        if (expires - datetime.now(UTC)).days < _SOON_DAYS:
            remedy = "remind the server's operator of 'wardround server renew'."
            raise FaultError(fact=fact, remedy=remedy, status="warn")
        return fact

    def _accepted(self) -> str:
        self._status = self._known_reply().read(ServerStatus)
        return f"the server knows this site as {self._status.site}"

    def _clock(self) -> str:
        reply = self._known_reply()
        skew = clock_skew_seconds(reply.date, reply.received)
        if skew is None:
            raise FaultError(
                fact="the server does not say its time", remedy="compare the clocks.", status="warn"
            )
        fact = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's"
        if abs(skew) > _SKEW_SECONDS:
            status: Status = "fail" if abs(skew) > _WORST_SKEW_SECONDS else "warn"
            raise FaultError(
                fact=fact, remedy="let NTP set this machine's clock (timedatectl).", status=status
            )
        return fact

    def _versions(self) -> str:
        theirs = self._status
        if theirs is None:
            raise _unknown()
        fact = (
            f"wardround {wardround.__version__} and flwr {version('flwr')} here, "
            f"wardround {theirs.wardround} and flwr {theirs.flwr} there"
        )
        if not understand_each_other(wardround.__version__, theirs.wardround):
            remedy = "agree with the server's operator on versions of which only the last number "
            raise FaultError(fact=fact, remedy=f"{remedy}differs.")
        if not is_tested_flower(theirs.flwr):
            remedy = f"agree with the server's operator on flwr {' or '.join(TESTED_FLOWER)}."
            raise FaultError(fact=fact, remedy=remedy)
        return fact

    def _known_endpoint(self) -> Endpoint:
        return self._endpoint or find_endpoint(self._address)

    def _known_reply(self) -> Reply:
        if self._reply is None:
            raise FaultError(fact="not known", remedy="mend what fails above first.", status="warn")
        return self._reply


def _unknown() -> FaultError:
    return FaultError(fact="not known", remedy=_FIRST, status="warn")


def find_endpoint(address: str) -> Endpoint:
    """Return where a connection to an address goes first, by the environment's proxy settings.

    Raises:
        FaultError: The proxy's address cannot be read.
    """
    try:
        proxy = proxy_on_the_way(address)
    except ValueError:
        fact = "HTTPS_PROXY is not an address"
        raise FaultError(fact=fact, remedy="write it as http://proxy.example.org:3128") from None
    if proxy is not None:
        return Endpoint(*proxy, is_proxy=True)
    target = urlsplit(f"https://{address}")
    return Endpoint(target.hostname or "", target.port or 443, is_proxy=False)


def clock_skew_seconds(date: str, now: datetime) -> float | None:
    """Return by how much this clock is ahead of the one that wrote a Date header.

    Returns:
        Seconds; 0 within the two that a header cut to the second, and kept for one, may be late;
        None if it says no time.
    """
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    skew = (now - then).total_seconds()
    return 0.0 if 0 <= skew < _HEADER_SECONDS else skew
