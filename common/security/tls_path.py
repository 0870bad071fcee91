"""What stands between a site and its server: proxies, and whoever ends TLS before the server does.

A site trusts the consortium's authority alone, so a proxy that opens TLS, or a load balancer that
ends it, is always noticed. Here it gets a name, since the remedy differs: one is the hospital's,
the other the operator's.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509
from cryptography.x509.oid import NameOID

from wardround.common.errors import InputError, causes

AUTHORITY = "Wardround CA"  # common name of a consortium's authority
_LOOK_SECONDS = 10.0
_LONGEST_NAME = 60  # characters of an issuer that are shown

Interception = Literal["tls-proxy", "tls-balancer"]
INTERCEPTIONS: dict[str, str] = {
    "tls-proxy": (
        "a proxy or firewall opens TLS on the way and shows a certificate of its own: ask the "
        "network team that runs it to make an exception for the server's address and port."
    ),
    "tls-balancer": (
        "a load balancer ends TLS in front of the server and shows a public certificate: ask the "
        "server's operator to have it pass TLS through (TCP mode), since the server must see it."
    ),
}
PROXY_ANSWERS: dict[str, str] = {
    "proxy-password": (
        "the proxy wants a user and a password: write HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, "
        "or ask who runs it to let this machine through without."
    ),
    "proxy-refused": (
        "the proxy does not allow connections to the server's name and port: ask who runs it to "
        "allow CONNECT to them."
    ),
    "proxy-failed": (
        "the proxy did not reach the server: check the server's name and port, and ask who runs "
        "the proxy whether its firewall lets that out."
    ),
}
_PASSWORD, _REFUSED = 407, (400, 401, 403, 404, 405)
_SOCKS = (
    "the environment names a SOCKS proxy (HTTPS_PROXY or ALL_PROXY), which wardround does not use: "
    "set HTTPS_PROXY to an HTTP proxy that knows CONNECT, NO_PROXY to the server's name to go "
    "without, or install the package socksio for SOCKS5."
)
_NO_PROXY = (
    "HTTPS_PROXY (or ALL_PROXY) is not the address of a proxy: write it as http://HOST:PORT."
)


@contextmanager
def proxy_settings_read() -> Iterator[None]:
    """Say what is wrong with the environment's proxy, where a client is made that would use it.

    Raises:
        InputError: It is a SOCKS proxy, or no address.
    """
    try:
        yield
    except ImportError:
        raise InputError(_SOCKS) from None
    except (ValueError, httpx.InvalidURL):
        socks = any(_is_socks(text) for text in _proxies())
        raise InputError(_SOCKS if socks else _NO_PROXY) from None


def proxy_on_the_way(address: str) -> tuple[str, int] | None:
    """Return host and port of the proxy that connections go through; None where there is none.

    What the environment holds of a proxy's password is left out.

    Args:
        address: Of the server, "host:port".

    Raises:
        ValueError: The proxy's port is none.
    """
    target, proxies = urlsplit(f"https://{address}"), getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or proxy_bypass(f"{target.hostname or ''}:{target.port}"):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or 80


def proxy_answer(error: httpx.HTTPError) -> str | None:
    """Return what a proxy's refusal means, a key of PROXY_ANSWERS; None where it is no such."""
    refused = next((one for one in causes(error) if isinstance(one, httpx.ProxyError)), None)
    if refused is None:
        return None
    with suppress(ValueError):
        status = int(str(refused).partition(" ")[0])
        if status == _PASSWORD:
            return "proxy-password"
        return "proxy-refused" if status in _REFUSED else "proxy-failed"
    return "proxy-failed"


def who_ends_tls(address: str) -> tuple[Interception, str] | None:
    """Return who ends TLS before the server, and whose certificate that shows; None if nobody does.

    It connects once more and says nothing: neither a certificate nor a request.

    Args:
        address: Of the server, "host:port".
    """
    shown = shown_certificate(address)
    if shown is None:
        return None
    return judge_certificate(address, shown)


def judge_certificate(address: str, shown: bytes) -> tuple[Interception, str] | None:
    """Return who shows a certificate in a server's place; None for one of a consortium.

    Args:
        shown: The certificate in DER.
    """
    try:
        issuer = x509.load_der_x509_certificate(shown).issuer
    except ValueError:
        return "tls-proxy", "?"
    names = [
        str(part.value)
        for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
        for part in issuer.get_attributes_for_oid(kind)
    ]
    if names[:1] == [AUTHORITY]:
        return None
    public = shown_certificate(address, publicly_trusted=True)
    name = (names or ["?"])[0][:_LONGEST_NAME]
    return ("tls-proxy" if public is None else "tls-balancer"), name


def shown_certificate(address: str, publicly_trusted: bool = False) -> bytes | None:
    """Return the certificate that is shown at an address, in DER; None where there is none.

    Args:
        publicly_trusted: Whether it must be one that browsers trust.
    """
    if publicly_trusted:
        context = httpx.create_ssl_context(trust_env=False)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    seen: list[bytes] = []
    context.sslsocket_class = _looking(seen)
    with (
        suppress(httpx.HTTPError, InputError, OSError),
        proxy_settings_read(),
        httpx.Client(verify=context, timeout=_LOOK_SECONDS, follow_redirects=False) as client,
    ):
        client.get(f"https://{address}/")  # which is not sent: see _looking
    return seen[0] if seen else None


def _looking(seen: list[bytes]) -> type[ssl.SSLSocket]:
    """Return a socket that keeps the certificate it is shown and ends before anything is said."""

    class LookingSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            shown = self.getpeercert(binary_form=True)
            if shown:
                seen.append(shown)
            raise ssl.SSLError

    return LookingSocket


def _proxies() -> list[str]:
    return list(getproxies().values())


def _is_socks(text: str) -> bool:
    return text.lower().startswith("socks")
