"""The server folder: ``server.toml`` and where everything else of a server lies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.errors import InputError
from wardround.common.fields import OfForm
from wardround.common.files.validated_toml import read_toml
from wardround.common.study.sections import Name

SERVER_FILE = "server.toml"
PublicName = Annotated[
    str,
    OfForm(
        "^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$",
        "a host name or an address without a port, e.g. fl.example.org",
    ),
]
OperatorAddress = Annotated[
    str, OfForm(r"^([^\s/]{1,253}:[0-9]{1,5})?$", 'an address and a port, e.g. 0.0.0.0:8444, or ""')
]
Days = Annotated[float, Field(gt=0, le=3650)]


class ServerFile(BaseModel):
    """The content of ``server.toml``; an unknown key is refused.

    Attributes:
        name: The consortium's name; it stands in its certificates.
        host: Address that the public listener binds, e.g. "0.0.0.0".
        public_names: Host names or addresses under which sites reach the server; all stand in its
            certificate, and the first in each invitation.
        parallel_studies: How many studies run at a time.
        operators: "host:port" on which operators with certificates are answered; "" for nowhere
            but on the server's own machine.
        approval_timeout_seconds: How long a study waits for its quorum: for sites to connect, and
            to approve it.
        gathering_seconds: How long a study that has its quorum waits for other sites before it
            begins without them.
        first_deadline_seconds: How long a round waits for a reply where the study sets no
            deadline: until a round is complete, and at most.
        least_deadline_seconds: Afterwards it is four times the longest round, and at least this.
        absence_seconds: How long such a round waits for a site that is not connected.
        site_certificate_days: How long a site's certificate is valid; it is renewed when less than
            a third of that is left.
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
    parallel_studies: Annotated[int, Field(ge=1, le=64)] = 1
    approval_timeout_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    gathering_seconds: Annotated[float, Field(ge=0)] = 10.0
    first_deadline_seconds: Annotated[float, Field(gt=0)] = 14_400.0
    least_deadline_seconds: Annotated[float, Field(gt=0)] = 300.0
    absence_seconds: Annotated[float, Field(gt=0)] = 600.0
    site_certificate_days: Days = 90.0
    server_certificate_days: Days = 365.0
    most_connections: Annotated[int, Field(ge=32, le=100_000)] = 1024
    most_connections_of_a_site: Annotated[int, Field(ge=4, le=1024)] = 16
    silence_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0

    @property
    def address(self) -> str:
        """Where sites find the server: "name:port"."""
        name = self.public_names[0]
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


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
