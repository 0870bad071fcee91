"""One request of a site to its server, and in words what went wrong with it."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from wardround.common.errors import RunError, causes
from wardround.common.security.enrolment import LARGEST_BODY, SENTENCES, Reason, Refused
from wardround.common.security.tls_path import (
    INTERCEPTIONS,
    PROXY_ANSWERS,
    proxy_answer,
    proxy_on_the_way,
    proxy_settings_read,
    who_ends_tls,
)

Content = TypeVar("Content", bound=BaseModel)
_TIMEOUT_SECONDS = 20.0  # a server signs a certificate in well under a second; proxies are slow


class LinkError(RunError):
    """The server was not reached, or not trusted.

    Attributes:
        sent: Whether a request may have reached the server.
    """

    def __init__(self, text: str, sent: bool = False) -> None:
        super().__init__(text)
        self.sent = sent


class RefusedByServerError(RunError):
    """The server was reached and refused."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        received: When, by this machine's clock.
        date: The server's clock, as the header Date says; "" if it says nothing.
        expires: When the server's certificate does; None if that is not known.
    """

    status: int
    body: bytes
    received: datetime
    date: str
    expires: datetime | None

    def read(self, wanted: type[Content]) -> Content:
        """Return the content.

        Raises:
            RefusedByServerError: The server refused, or the reply cannot be used.
        """
        try:
            if self.status == httpx.codes.OK:
                return wanted.model_validate_json(self.body)
            msg = SENTENCES[Reason(Refused.model_validate_json(self.body).refused)]
        except (ValidationError, ValueError):
            msg = (
                f"the server answered {self.status} in a way that is not understood: check that "
                "the address is a wardround server's and that no proxy answers in its place."
            )
        raise RefusedByServerError(msg)


@contextmanager
def open_link(address: str, context: ssl.SSLContext) -> Iterator[httpx.Client]:
    """Open a connection to a server; it goes through HTTPS_PROXY where that is set.

    Raises:
        InputError: The proxy is of a kind that is not used, or its address cannot be read.
    """
    with proxy_settings_read():
        client = httpx.Client(
            base_url=f"https://{address}",
            verify=context,
            timeout=_TIMEOUT_SECONDS,
            headers={"accept-encoding": "identity"},
            follow_redirects=False,
        )
    with client:
        yield client


def ask(
    client: httpx.Client, path: str, wanted: type[Content], body: BaseModel | None = None
) -> Content:
    """Send one request and return what the server answers.

    Raises:
        LinkError: The server was not reached, or is not the one it should be.
        RefusedByServerError: It refused, or its reply cannot be used.
    """
    return exchange(client, path, body).read(wanted)


def exchange(
    client: httpx.Client,
    path: str,
    body: BaseModel | bytes | None = None,
    largest: int = LARGEST_BODY,
) -> Reply:
    """Send one request and return what comes back.

    Args:
        body: What is sent: JSON, as it is where its spelling is signed.
        largest: How many bytes of a reply are read.

    Raises:
        LinkError: As :func:`ask`.
        RefusedByServerError: The reply is larger than any is.
    """
    method = "GET" if body is None else "POST"
    content = body.model_dump_json().encode() if isinstance(body, BaseModel) else body
    headers: Mapping[str, str] = {} if body is None else {"content-type": "application/json"}
    received = bytearray()
    try:
        with client.stream(method, path, content=content, headers=headers) as response:
            received_at, expires = datetime.now(UTC), _server_expiry(response)
            for part in response.iter_raw():
                received += part
                if len(received) > largest:
                    msg = "the server's answer is larger than any is: is it a wardround server?"
                    raise RefusedByServerError(msg)
            date = response.headers.get("date", "")
            return Reply(response.status_code, bytes(received), received_at, date, expires)
    except httpx.HTTPError as error:
        address = f"{client.base_url.host}:{client.base_url.port or 443}"
        raise explain_failure(error, address) from None


def explain_failure(error: httpx.HTTPError, address: str) -> LinkError:
    """Return what a failed request means, and what to do about it."""
    cause = _tls_error(error)
    if isinstance(cause, ssl.SSLError) and (ended := explain_ended_tls(address)):
        return LinkError(ended)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return LinkError(f"{address} is not trusted: {explain_untrusted(cause, address)}")
    if isinstance(cause, ssl.SSLError):
        return LinkError(f"{address} ended the TLS connection: {explain_alert(cause)}", sent=True)
    answer = proxy_answer(error)
    if answer is not None:
        return LinkError(f"{address} cannot be reached: {PROXY_ANSWERS[answer]}")
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return LinkError(_unreached(address))
    return LinkError(
        f"the connection to {address} broke off: try again; if it goes on, "
        "ask the server's operator.",
        sent=True,
    )


def _unreached(address: str) -> str:
    """Return what it means that no connection was made: to the proxy on the way, where one is."""
    proxy = proxy_on_the_way(address)  # one whose port is none made no client
    if proxy is not None:
        return (
            f"the proxy {proxy[0]}:{proxy[1]} that HTTPS_PROXY names does not answer, so {address} "
            "was not asked: check its address, or set NO_PROXY to the server's name to go without."
        )
    return (
        f"{address} cannot be reached: run 'wardround site doctor', or ask whether the server "
        "runs and the firewall lets connections out to that port."
    )


def explain_ended_tls(address: str) -> str:
    """Return who ends TLS before the server, and what to do; "" where it is the server itself."""
    found = who_ends_tls(address)
    if found is None:
        return ""
    kind, issuer = found
    return (
        f"what answers at {address} is not the server (its certificate is by {issuer!r}): "
        + (INTERCEPTIONS[kind])
    )


def explain_untrusted(error: ssl.SSLCertVerificationError, address: str) -> str:
    """Return why a server's certificate is not trusted, and what to do."""
    host = urlsplit(f"//{address}").hostname
    return _UNTRUSTED.get(
        error.verify_code,
        f"its certificate is not of the consortium's CA, so something else answers in {host}'s "
        "place: a proxy that opens TLS, or another server. Such a proxy must make an exception.",
    )


_UNTRUSTED = {
    9: "its certificate is not valid yet: set this machine's clock.",
    10: (
        "its certificate has expired: check this machine's clock, or ask the server's operator to "
        "run 'wardround server renew'."
    ),
    62: (
        "its certificate is for another name: ask the server's operator under which name it is "
        "reached, and give that in site.toml."
    ),
    64: (
        "its certificate is for another address: ask the server's operator under which name it is "
        "reached, and give that in site.toml."
    ),
}


def explain_alert(error: ssl.SSLError) -> str:
    """Return what a server's TLS refusal means, and what to do."""
    text = str(error).upper()
    if "CERTIFICATE_EXPIRED" in text or "CERTIFICATE EXPIRED" in text:
        return "this certificate has expired: ask the server's operator for a new invitation."
    if "UNKNOWN_CA" in text or "UNKNOWN CA" in text:
        return "this certificate is of another consortium: join this server with its own token."
    if "WRONG_VERSION" in text or "PROTOCOL_VERSION" in text:
        return "it does not speak TLS 1.2 or newer there: check the address and its port."
    return "check this machine's clock and ask the server's operator for a new invitation."


def _server_expiry(response: httpx.Response) -> datetime | None:
    connection = response.extensions["network_stream"].get_extra_info("ssl_object")
    text = (connection.getpeercert() or {}).get("notAfter") if connection is not None else None
    return None if text is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _tls_error(error: BaseException) -> BaseException:
    """Return the TLS error behind an error, or the error itself."""
    return next((seen for seen in causes(error) if isinstance(seen, ssl.SSLError)), error)
