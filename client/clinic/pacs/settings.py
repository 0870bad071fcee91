"""``pacs.toml``: where a site's picture archive is, how it is asked, and how much it may send.

Passwords and tokens stand in files or in the environment, never in a command or in this file: a
command line is seen by every account of the machine.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wardround.common.errors import InputError
from wardround.common.files.validated_toml import read_toml
from wardround.common.runtime.fields import OfForm
from wardround.common.runtime.system.files import is_open_to_others

PACS_FILE = "pacs.toml"
_LONGEST_SECRET = 16_384  # bytes; tokens of a few kilobytes are usual

Title = Annotated[
    str, OfForm(r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$", "an AE title of 1 to 16 characters")
]
Host = Annotated[
    str, OfForm(r"^[0-9A-Za-z:._-]{1,253}$", "a name or an address, e.g. pacs.example.org")
]
Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3_600)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WebTable(_Table):
    """An archive that speaks DICOMweb (PS3.18: QIDO-RS, WADO-RS, STOW-RS).

    Attributes:
        url: Where its services start, e.g. ``https://pacs.example.org/dicom-web``.
        user: Name for HTTP's basic authentication.
        password_file: Holds the password that goes with it.
        password_variable: Or the environment variable that does.
        token_file: Of a bearer token, read anew for each connection.
        token_variable: Or the environment variable that holds one.
        ca_file: Certificates that the archive's own must be signed by; the system's if absent.
        certificate_file: This site's own, where the archive asks for one.
        key_file: The key of that certificate.
        timeout_seconds: How long an answer is waited for.
    """

    url: Annotated[
        str,
        OfForm(
            r"^https?://[0-9A-Za-z\[\]:._-]{1,253}(/[0-9A-Za-z._~/-]*)?$",
            "an address such as https://pacs.example.org/dicom-web, without user and password",
        ),
    ]
    user: Annotated[str, Field(max_length=256)] = ""
    password_file: str = ""
    password_variable: str = ""
    token_file: str = ""
    token_variable: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    timeout_seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _check(self) -> "WebTable":
        secrets = (self.password_file, self.password_variable)
        tokens = (self.token_file, self.token_variable)
        if sum(map(bool, secrets + tokens)) > 1:
            msg = (
                "dicomweb has more than one of password_file, password_variable, token_file and "
                "token_variable: keep one."
            )
            raise ValueError(msg)
        if bool(self.user) != any(secrets):
            msg = "dicomweb.user and a password (password_file or password_variable) go together."
            raise ValueError(msg)
        if (any(secrets) or any(tokens)) and not (
            self.url.startswith("https://") or _is_this_machine(self.url)
        ):
            msg = (
                f"dicomweb.url = {self.url!r} would send the password unencrypted over the "
                "network: use https."
            )
            raise ValueError(msg)
        return self


class ClassicTable(_Table):
    """An archive that speaks DICOM's own protocol (PS3.7: C-FIND, C-GET or C-MOVE, C-STORE).

    Attributes:
        host: The archive's name or address.
        port: Where it listens.
        title: The archive's AE title.
        own_title: This site's AE title, as the archive knows it.
        retrieve: "get" has images come over the same connection; with "move" the archive connects
            to this site's ``[receiver]``.
        tls: Whether the connection is encrypted.
        ca_file: As in ``[dicomweb]``.
        certificate_file: As there.
        key_file: As there.
        timeout_seconds: How long an answer is waited for.
    """

    host: Host
    port: Port
    title: Title
    own_title: Title = "WARDROUND"
    retrieve: Annotated[str, OfForm(r"^(get|move)$", '"get" or "move"')] = "get"
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    timeout_seconds: Seconds = 60.0


class Peer(_Table):
    """Who may send images.

    Attributes:
        title: Its AE title.
        address: Where it sends from.
    """

    title: Title
    address: Host


class ReceiverTable(_Table):
    """Where this site takes images that are sent to it (a C-STORE receiver).

    Attributes:
        title: This site's AE title as a receiver.
        address: The network address to listen at; only this machine unless another is named.
        port: Where it listens there.
        allowed: Who may send. Nobody else is heard: an AE title alone is no secret.
        ca_file: Whoever sends must show a certificate signed by it.
        certificate_file: With ``key_file``, has it speak TLS.
        key_file: The key of that certificate.
    """

    title: Title = "WARDROUND"
    address: Host = "127.0.0.1"
    port: Port = 11_112
    allowed: Annotated[tuple[Peer, ...], Field(min_length=1)]
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""


class LimitsTable(_Table):
    """How much is taken from an archive, which may be wrong or hostile.

    Attributes:
        object_megabytes: Of one DICOM object.
        series_objects: Objects of one series.
        series_megabytes: Of all objects of one series.
        found: Studies or series of one answer.
        free_gigabytes: Of the disk stay free; nothing is received below.
    """

    object_megabytes: Annotated[int, Field(ge=1, le=16_384)] = 1_024
    series_objects: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    series_megabytes: Annotated[int, Field(ge=1, le=1_048_576)] = 8_192
    found: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    free_gigabytes: Annotated[float, Field(ge=0)] = 2.0


class ServeTable(_Table):
    """Which series ``wardround site serve`` answers, and how often it asks.

    Attributes:
        modality: Of the series, e.g. "MR"; all images if empty.
        study_description: A pattern with ``*`` and ``?``, whatever the capitals.
        series_description: As well.
        days: Studies of so many days before the last time that it asked, that day included.
        poll_seconds: Between two questions; 0 never asks, and waits for what is sent.
        settle_seconds: For so long a series must not have grown: it may still be arriving.
        receive: Whether images may also be sent to ``[receiver]``.
        retry_seconds: Until a study that failed is tried again; doubled each time, to an hour.
        most_errors: After so many a study is given up, and the status says why.
        fhir: Whether the result is also kept as FHIR resources in the site folder.
        monitor: Whether each study that is answered is counted by ``wardround site monitor``; a
            reference of the model must have been set.
    """

    modality: Annotated[str, OfForm(r"^[A-Z0-9_ ]{0,16}$", "a DICOM modality, e.g. MR")] = ""
    study_description: Annotated[str, Field(max_length=256)] = "*"
    series_description: Annotated[str, Field(max_length=256)] = "*"
    days: Annotated[int, Field(ge=0, le=36_500)] = 2
    poll_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    settle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    receive: bool = False
    retry_seconds: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    most_errors: Annotated[int, Field(ge=1, le=1_000)] = 5
    fhir: bool = True
    monitor: bool = False


class PacsFile(_Table):
    """The content of ``pacs.toml``: either ``[dicomweb]`` or ``[classic]``, and what else holds.

    Attributes:
        dicomweb: An archive that speaks DICOMweb.
        classic: Or one that speaks DICOM's own protocol.
        receiver: Where this site takes images that are sent to it.
        limits: How much is taken from an archive.
        serve: Which series ``wardround site serve`` answers.
    """

    dicomweb: WebTable | None = None
    classic: ClassicTable | None = None
    receiver: ReceiverTable | None = None
    limits: LimitsTable = LimitsTable()
    serve: ServeTable = ServeTable()

    @property
    def web(self) -> WebTable:
        """The table ``[dicomweb]`` of a file without ``[classic]``."""
        if self.dicomweb is None:
            msg = "pacs.toml has no table [dicomweb]."
            raise InputError(msg)
        return self.dicomweb

    @model_validator(mode="after")
    def _check(self) -> "PacsFile":
        if (self.dicomweb is None) == (self.classic is None):
            msg = (
                "pacs.toml needs one table of [dicomweb] and [classic]: it says how the archive "
                "is asked."
            )
            raise ValueError(msg)
        if self.classic is not None and self.classic.retrieve == "move" and self.receiver is None:
            msg = (
                'classic.retrieve = "move" has the archive connect to this site: add a table '
                "[receiver] with its title, port and whom it allows."
            )
            raise ValueError(msg)
        if self.serve.receive and self.receiver is None:
            msg = (
                "serve.receive = true needs a table [receiver] with its title, port and whom it "
                "allows."
            )
            raise ValueError(msg)
        if self.classic is not None and self.classic.retrieve == "move" and self.serve.receive:
            msg = (
                'serve.receive and classic.retrieve = "move" both need the receiver\'s port: fetch '
                'with "get", or have everything sent.'
            )
            raise ValueError(msg)
        return self


def read_pacs_file(site: Path) -> PacsFile:
    """Read ``pacs.toml`` of a site folder.

    Raises:
        InputError: There is none, or it says something that cannot be.
    """
    path = site / PACS_FILE
    absent = (
        f"{path} is not there: it says where the picture archive is. Write it, with a table "
        "[dicomweb] and its url, or [classic] and its host, port and title."
    )
    return read_toml(path, PacsFile, InputError, absent)


def read_secret(site: Path, file: str, variable: str) -> str:
    """Return a password or a token, from a file of the site folder or from the environment.

    Args:
        file: Its path, from the site folder; "" for none.
        variable: Name of the environment variable, where there is no file; "" for none.

    Raises:
        InputError: It cannot be read, is empty or other accounts can read the file.
    """
    if not file:
        return _checked(os.environ.get(variable, ""), f"the environment variable {variable}")
    path = site / file
    try:
        with path.open("rb") as stream:
            readable = is_open_to_others(os.fstat(stream.fileno()))
            text = stream.read(_LONGEST_SECRET + 1).decode("utf-8")
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): it holds what the archive wants to see."
        raise InputError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path} is not text: write the password or the token into it, and nothing else."
        raise InputError(msg) from None
    if readable:
        msg = f"other accounts can read {path}: chmod 600 {path}"
        raise InputError(msg)
    return _checked(text, str(path))


def _checked(text: str, origin: str) -> str:
    secret = text.strip("\r\n")
    if not secret.strip() or len(secret) > _LONGEST_SECRET or not secret.isprintable():
        msg = f"{origin} holds no password or token: one line of printable characters."
        raise InputError(msg)
    return secret


def _is_this_machine(url: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
