"""The server folder: ``server.toml`` and where everything else of a server lies."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wardround.common.errors import InputError
from wardround.common.files.validated_toml import read_toml
from wardround.common.monitoring.addresses import Endpoint, MetricsAddress
from wardround.common.runtime.fields import OfForm
from wardround.common.study.sections.fields import Name

SERVER_FILE, LOCK_FILE = "server.toml", "server.lock"
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_IPV6 = r"[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*"
PublicName = Annotated[
    str,
    OfForm(
        rf"^({_HOST}(:[0-9]{{1,5}})?|\[{_IPV6}\](:[0-9]{{1,5}})?|{_IPV6})$",
        "a host name or an address, with a port where it is another than the one listened on, "
        "e.g. fl.example.org or fl.example.org:443",
    ),
]
OperatorAddress = Annotated[
    str, OfForm(r"^([^\s/]{1,253}:[0-9]{1,5})?$", 'an address and a port, e.g. 0.0.0.0:8444, or ""')
]
_LARGEST_PORT = 65_535
Days = Annotated[float, Field(gt=0, le=3650)]


class ServerFile(BaseModel):
    """The content of ``server.toml``; an unknown key is refused.

    Attributes:
        name: The consortium's name; it stands in its certificates.
        host: Address that the public listener binds, e.g. "0.0.0.0".
        port: Where it listens there.
        public_names: Host names or addresses under which sites reach the server; all stand in its
            certificate, and the first in each invitation. With a port, "fl.example.org:443", where
            sites dial another one than ``port``, as behind a router that maps ports.
        parallel_studies: How many studies run at a time.
        operators: "host:port" on which operators with certificates are answered; "" for nowhere
            but on the server's own machine.
        metrics: "host:port" on which Prometheus is answered, without authentication, e.g.
            "127.0.0.1:9464"; "" for nowhere.
        traces: Where OpenTelemetry's spans of rounds go, e.g. "http://127.0.0.1:4318";
            "environment" for what OTEL_EXPORTER_OTLP_ENDPOINT says; "" for nowhere.
        pages: "host:port" on which the operators' page is served; "" for nowhere. On loopback it is
            for who has the link, elsewhere for browsers with an operator's certificate.
        page_actions: Whether that page may submit studies, stop and resume runs, and invite sites.
        approval_timeout_seconds: How long a study waits for its quorum: for sites to connect, and
            to approve it.
        gathering_seconds: How long a study that has its quorum waits for other sites before it
            begins without them.
        first_deadline_seconds: How long a round waits for a reply where the study sets no
            deadline: until a round is complete, and at most.
        least_deadline_seconds: Afterwards it is four times the longest round, and at least this.
        absence_seconds: How long such a round waits for a site that is not connected.
        gives_models: Whether a site may fetch the model of a finished study that it took part in.
        site_certificate_days: How long a site's certificate is valid; it is renewed when less than
            a third of that is left.
        server_certificate_days: The same for the server's own.
        most_connections: On the sites' port, all together. An eighth of the places is for
            connections on which nothing was said yet, one for handshakes, a sixteenth for the
            invited, the rest for sites. Each takes up to 0.4 MB of memory. The system must allow as
            many open files, and 64 more.
        most_connections_of_a_site: With one more its oldest is ended.
        silence_seconds: How long no byte of a request may come before it is dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name
    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    public_names: Annotated[tuple[PublicName, ...], Field(min_length=1)]
    operators: OperatorAddress = ""
    metrics: MetricsAddress = ""
    traces: Endpoint = ""
    pages: OperatorAddress = ""
    page_actions: bool = False
    parallel_studies: Annotated[int, Field(ge=1, le=64)] = 1
    approval_timeout_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    gathering_seconds: Annotated[float, Field(ge=0)] = 10.0
    first_deadline_seconds: Annotated[float, Field(gt=0)] = 14_400.0
    least_deadline_seconds: Annotated[float, Field(gt=0)] = 300.0
    absence_seconds: Annotated[float, Field(gt=0)] = 600.0
    gives_models: bool = True
    site_certificate_days: Days = 90.0
    server_certificate_days: Days = 365.0
    most_connections: Annotated[int, Field(ge=32, le=100_000)] = 1024
    most_connections_of_a_site: Annotated[int, Field(ge=4, le=1024)] = 16
    silence_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0

    @property
    def address(self) -> str:
        """Where sites find the server: "name:port"."""
        return self.addresses[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        """All places where sites find the server, each "name:port"."""
        split = (_split(name, self.port) for name in self.public_names)
        return tuple(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in split
        )

    @property
    def host_names(self) -> tuple[str, ...]:
        """The public names without ports, each once: what the server's certificate is for."""
        return tuple(dict.fromkeys(_split(name, self.port)[0] for name in self.public_names))

    @field_validator("public_names")
    @classmethod
    def _have_ports(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            host, port = _split(name, 1)
            if not 1 <= port <= _LARGEST_PORT:
                msg = f"{name!r} has no port from 1 to {_LARGEST_PORT}: write HOST or HOST:PORT."
                raise ValueError(msg)
            if ":" in host:
                _check_ipv6(host)
        return names


def _split(name: str, port: int) -> tuple[str, int]:
    """Return host and port of a public name; a bare IPv6 address has no port."""
    if name.startswith("["):
        host, _, own = name[1:].partition("]")
        return host, int(own[1:] or port)
    host, _, own = name.partition(":")
    return (name, port) if ":" in own else (host, int(own or port))


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        msg = f"{host!r} is not an IPv6 address: write HOST, HOST:PORT or [ADDRESS]:PORT."
        raise ValueError(msg) from None


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """An opened server folder."""

    folder: Path
    settings: ServerFile


def open_server(folder: Path) -> ServerFolder:
    """Open a server folder.

    Raises:
        InputError: There is no ``server.toml``, or it says something unknown.
    """
    absent = (
        f"{folder} has no {SERVER_FILE}: give a server folder, or make one with "
        f"'wardround server init {folder} --name NAME --public-name HOST'."
    )
    settings = read_toml(folder / SERVER_FILE, ServerFile, InputError, absent)
    return ServerFolder(folder.resolve(), settings)
