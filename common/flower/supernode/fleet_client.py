"""The connection of one site to a SuperLink's Fleet API, over mutual TLS.

Flower's own client is used for what is on the wire, and not its loop around it: that loop ends the
process where the server refuses, fetches code, and presents no certificate. Here every failure is a
:class:`FleetError` with a word of :data:`FLEET_CODES`, nothing is retried and nothing ends.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_connection.py`` holds the contract.
"""

import ssl
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from wardround.common.errors import root_cause
from wardround.common.flower.environment import (
    FLOWER_HEADER,
    INSTALL_FLOWER,
    TESTED_FLOWER,
    plain_version,
)
from wardround.common.flower.response_release import Releasing
from wardround.common.security.tls_path import (
    INTERCEPTIONS,
    PROXY_ANSWERS,
    proxy_answer,
    proxy_settings_read,
)

STILL_CONNECTED, OTHER_FLOWER = "still-connected", "flower-version"
LARGEST_RESPONSE_BYTES = 32 * 2**20  # Flower sends an array in pieces of 5 MB
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 30.0  # reading outlasts the longest wait of a long poll
_KEPT_SECONDS = 60.0  # a connection without a call; heartbeats come every few seconds

# Why the server is not reached, in a word, and what a person can do about it.
FLEET_CODES = {
    "no-connection": (
        "the server does not answer: check its name and port, the firewall and the proxy."
    ),
    "server-certificate": (
        "the server's certificate is not from the authority in keys/ca.crt, or has expired: ask "
        "the server's operator; never copy another authority unchecked."
    ),
    "server-name": (
        "the server's certificate is for another name than the one in site.toml: use a name that "
        "the server's operator says, or ask for this one in public_names and 'server renew'."
    ),
    **INTERCEPTIONS,
    **PROXY_ANSWERS,
    "own-certificate": (
        "the server does not take this site's certificate: it has expired or was revoked. "
        "Run 'wardround site renew', or ask for a new invitation."
    ),
    "not-admitted": (
        "the server knows no such site, or the clocks differ by more than five minutes: "
        "check this machine's clock, then ask for a new invitation."
    ),
    "refused": (
        "the server refuses this site: it was revoked, its certificate has expired, or the server "
        "is another one."
    ),
    STILL_CONNECTED: (
        "the server still counts the last connection of this site: wait, it ends by itself."
    ),
    OTHER_FLOWER: (
        "the server does not work with this site's version of Flower ('wardround site doctor' "
        f"names both): with flwr {' or '.join(TESTED_FLOWER)} at both they work together, "
        f"{INSTALL_FLOWER}."
    ),
    "server-busy": "the server cannot answer now: it is starting, or has a fault of its own.",
    "unreadable": "what answers is no wardround server of this version, or sends too much.",
}

_WRONG_NAME = (62, 64)  # OpenSSL: host name, and address

_Result = TypeVar("_Result")


class FleetError(Exception):
    """The server is not reached, or does not do as asked.

    Args:
        code: A key of FLEET_CODES.
    """

    def __init__(self, code: str) -> None:
        super().__init__(FLEET_CODES[code])
        self.code = code


class RunEndedError(Exception):
    """The server no longer wants anything of this run.

    Args:
        is_withdrawn: Whether it said so of a run that it knows; else that run's process fell, or
            the server was started anew, and it may ask for the same again.
    """

    def __init__(self, is_withdrawn: bool = False) -> None:
        super().__init__()
        self.is_withdrawn = is_withdrawn


class FleetLink:
    """Calls of the Fleet API as one site; threads may share it.

    ``HTTPS_PROXY`` and ``NO_PROXY`` are honoured; through a proxy TLS ends at the server all the
    same. A redirection is not followed.

    Args:
        address: "host:port".
        node_key: By which Flower knows the site.
        context: The site's TLS: whom it trusts, and the certificate it shows.
    """

    def __init__(
        self, address: str, node_key: ec.EllipticCurvePrivateKey, context: ssl.SSLContext
    ) -> None:
        self.address = address
        self._interceptors = (
            Releasing(),
            _Version(),
            NodeAuthHttpInterceptor(node_key, node_key.public_key()),
        )
        self.node_key = node_key.public_key()
        self._server_flower = ""
        self.open(context)

    def open(self, context: ssl.SSLContext) -> None:
        """Connect with this TLS from the next call on; a call under way ends as it began."""
        with proxy_settings_read():
            self._client = _Client(f"https://{self.address}", self._interceptors, context)

    def call(self, ask: Callable[[FleetHttpClient], _Result]) -> _Result:
        """Return what the server answers.

        Raises:
            FleetError: It does not.
            RunEndedError: The question is about a run that has ended.
        """
        try:
            return ask(self._client)
        except httpx.HTTPStatusError as error:
            failed = _failed_status(error.response)
            if isinstance(failed, FleetError) and failed.code == OTHER_FLOWER:
                self._server_flower = error.response.headers.get(FLOWER_HEADER, "")
            raise failed from None
        except httpx.HTTPError as error:
            raise _failed_transport(error) from None
        except (ValueError, RuntimeError):
            code = "unreadable"
            raise FleetError(code) from None

    def words(self, code: str) -> str:
        """Return the sentence of a word of FLEET_CODES, with what this server said."""
        if code != OTHER_FLOWER or not self._server_flower:
            return FLEET_CODES[code]
        here, there = version("flwr"), plain_version(self._server_flower)
        return f"flwr {here} here, flwr {there} there: {FLEET_CODES[code]}"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class _Client(FleetHttpClient):
    """Flower's client, with bounds on what it takes in."""

    def __init__(
        self,
        base_url: str,
        interceptors: Sequence[ProtobufClientInterceptor],
        context: ssl.SSLContext,
    ) -> None:
        super().__init__(base_url, interceptors=interceptors, verify=context)
        self._client.close()
        self._client = httpx.Client(
            verify=context,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            follow_redirects=False,
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_bound]},
            limits=httpx.Limits(keepalive_expiry=_KEPT_SECONDS),
        )


class _Version:
    """Says which Flower this is; Flower's own would end the process where the other differs."""

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the headers of a SuperNode."""
        add_headers(context.request, self._headers)
        return call_next(context)


class _Bounded(httpx.SyncByteStream):
    """A response's body, up to a limit."""

    def __init__(self, inner: httpx.SyncByteStream) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for chunk in self._inner:
            total += len(chunk)
            if total > LARGEST_RESPONSE_BYTES:
                msg = "the response is too large"
                raise httpx.DecodingError(msg)
            yield chunk

    def close(self) -> None:
        self._inner.close()


def _bound(response: httpx.Response) -> None:
    """Refuse a packed body, which could unpack to anything, and cut a long one off."""
    if "content-encoding" in response.headers:
        msg = "the response is packed"
        raise httpx.DecodingError(msg)
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream)


def _failed_status(response: httpx.Response) -> Exception:
    error = FlowerError.from_json(response.text)
    code = error.code if error is not None else None
    if code in (ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_GET_RUN_FAILED):
        return RunEndedError(code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED)
    if code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return FleetError(STILL_CONNECTED)
    if code == ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE:
        return FleetError(OTHER_FLOWER)
    words = {401: "not-admitted", 403: "refused", 412: OTHER_FLOWER}
    status = response.status_code
    return FleetError(words.get(status, "server-busy" if status >= 500 else "unreadable"))


def _failed_transport(error: httpx.HTTPError) -> FleetError:
    reason = root_cause(error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        is_name = reason.verify_code in _WRONG_NAME
        return FleetError("server-name" if is_name else "server-certificate")
    answer = proxy_answer(error)
    if answer is not None:
        return FleetError(answer)
    if isinstance(reason, ssl.SSLError) and "ALERT" in str(reason.reason or "").upper():
        return FleetError("own-certificate")
    if isinstance(error, httpx.DecodingError):
        return FleetError("unreadable")
    return FleetError("no-connection")
