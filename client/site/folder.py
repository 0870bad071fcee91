"""The site folder: who the hospital is, where its data lies, on what it trains.

A folder holds ``site.toml``, ``manifest.csv`` and what the site keeps for itself in ``state/``.
A simulated site is such a folder too.
"""

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wardround.common.errors import DataError
from wardround.common.files.usable_path import usable_path
from wardround.common.files.validated_toml import read_toml
from wardround.common.monitoring.addresses import MetricsAddress
from wardround.common.runtime.fields import OfForm
from wardround.common.study.sections.fields import Name, SiteName
from wardround.common.study.sections.simulation import Shift

KEY_FOLDER = "keys"
SITE_FILE = "site.toml"
AUDIT_FOLDER = "audit"
REVIEW_FOLDER = "review"
CA_CERTIFICATE = "ca.crt"  # of the server that the site has joined
_SERVER_DIGITS = 32


class Scanner(BaseModel):
    """A simulated scanner: how its images differ from those that the data set holds.

    Attributes:
        shift: The changes, in the order they are applied.
        seed: Seed of what is drawn in them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shift: tuple[Shift, ...] = ()
    seed: int = 0


class ServerTable(BaseModel):
    """Where the server is that a site has joined.

    Attributes:
        address: "name:port"; joining writes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[
        str,
        OfForm(
            r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$",
            "a name or an address, a colon and a port, e.g. fl.example.org:8443",
        ),
    ]


class LabelsTable(BaseModel):
    """What this site calls the classes of studies, and which it has annotated.

    Attributes:
        words: A word of the manifest, or a value of a mask, and the class or code that it stands
            for. A study that knows neither passes it over.
        annotated: The classes or codes that were looked for in the site's data; absent: whatever a
            study asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: Annotated[dict[str, str], Field(max_length=10_000)] = Field(default_factory=dict)
    annotated: Annotated[tuple[str, ...], Field(max_length=10_000)] | None = None


_DeviceName = Annotated[str, OfForm(r"^(cpu|cuda:\d+)$", "a GPU such as cuda:0, or cpu")]


class SiteFile(BaseModel):
    """The content of ``site.toml``.

    Attributes:
        name: The site's name in studies and at its server.
        manifest: The table of examinations, from the site folder.
        server: The server that the site has joined; a simulated site has none.
        data_root: Folder that relative paths of the manifest start from; the site folder if absent.
        device: "auto" takes a GPU where there is one, but for tables.
        devices: Several GPUs that train together, a process each: every batch is divided among
            them, and the result is that of one device. Instead of ``device``.
        ledger: Where the privacy ledger lies, from the site folder; several folders of one data
            set share one.
        cache_gigabytes: Memory for prepared images; beyond it they are kept on disk.
        cache_place: Where prepared images are kept: in memory as far as they fit, or on disk alone.
        skip_unreadable: Whether an examination that cannot be read is left out, and counted,
            instead of stopping the site.
        shift: How a simulated scanner differs; never set for a real hospital.
        shift_seed: Seed of that difference.
        scanners: Scanners by name, for a site with more than one: the manifest's column ``scanner``
            picks one a row; a row that names none has ``shift`` and ``shift_seed``.
        rows_of: Of a simulated site: the researcher's own manifest, whose rows messages name.
        labels: The site's words for classes.
        metrics: "host:port" on which Prometheus is answered, without authentication, e.g.
            "127.0.0.1:9465"; "" for nowhere. No number there is about a patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: SiteName
    manifest: str = "manifest.csv"
    data_root: str | None = None
    ledger: Annotated[str, Field(min_length=1)] = "ledger"
    device: Annotated[
        str, OfForm(r"^(auto|cpu|cuda(:\d+)?)$", "auto, cpu, cuda or a GPU such as cuda:0")
    ] = "auto"
    devices: Annotated[tuple[_DeviceName, ...], Field(max_length=16)] = ()
    cache_gigabytes: Annotated[float, Field(gt=0)] = 4.0
    cache_place: Literal["memory", "disk"] = "memory"
    skip_unreadable: bool = False
    shift: tuple[Shift, ...] = ()
    shift_seed: int = 0
    scanners: dict[Name, Scanner] = Field(default_factory=dict)
    rows_of: str | None = None
    server: ServerTable | None = None
    labels: LabelsTable = LabelsTable()
    metrics: MetricsAddress = ""

    @model_validator(mode="after")
    def _devices_fit(self) -> "SiteFile":
        if not self.devices:
            return self
        if self.device != "auto":
            msg = "device and devices are both set: remove one of them."
            raise ValueError(msg)
        gpus = [name for name in self.devices if name != "cpu"]
        if len(self.devices) < 2 or (gpus and len(set(gpus)) < len(self.devices)):
            msg = (
                f"devices = {list(self.devices)} cannot train together: name at least two GPUs, "
                'each once, e.g. ["cuda:0", "cuda:1"]; or set device for one.'
            )
            raise ValueError(msg)
        return self

    @property
    def first_device(self) -> str:
        """What holds the model and the patients: the first of several, or the only one."""
        return self.devices[0] if self.devices else self.device


@dataclass(frozen=True, slots=True)
class Site:
    """An opened site folder.

    Attributes:
        is_tolerant: Whether what cannot be used of a patient is left out, and no reason to refuse:
            to a server that protects patients from, a refusal would tell of that one.
    """

    folder: Path
    settings: SiteFile
    is_tolerant: bool = False

    @property
    def name(self) -> str:
        """The site's name, as the server knows it."""
        return self.settings.name

    @property
    def manifest_path(self) -> Path:
        """Where the manifest lies."""
        return self.folder / self.settings.manifest

    @property
    def unlabelled_path(self) -> Path:
        """Where the examinations are listed that nobody has labelled yet; it may be absent."""
        return self.folder / "unlabelled.csv"

    @property
    def corrections_path(self) -> Path:
        """The table of what readers said; absent where none has said anything."""
        return self.folder / REVIEW_FOLDER / "corrections.jsonl"

    @property
    def data_root(self) -> Path:
        """Folder that relative paths of the manifest start from."""
        return (self.folder / (self.settings.data_root or ".")).resolve()

    @property
    def skips_unreadable(self) -> bool:
        """Whether images that cannot be read are left out."""
        return self.is_tolerant or self.settings.skip_unreadable

    @property
    def ledger_folder(self) -> Path:
        """Where the privacy ledger lies."""
        return (self.folder / self.settings.ledger).resolve()

    @property
    def key_folder(self) -> Path:
        """The site's private keys, and the certificates that go with them."""
        return self.folder / KEY_FOLDER

    @property
    def state_folder(self) -> Path:
        """What the site keeps for itself."""
        return self.folder / "state"


def open_site(folder: str | PathLike[str]) -> Site:
    """Open a site folder, a hospital's or a simulated one.

    Raises:
        DataError: There is no ``site.toml``, or it says something unknown.
        InputError: It is no path.
    """
    if not isinstance(folder, Path):  # typed by a person, who may give anything
        folder = usable_path(folder, "a site folder")
    absent = (
        f"{folder} is not a site folder: it has no site.toml. "
        f"'wardround site join TOKEN --folder {folder}' makes one, with a token from the server's "
        "operator."
    )
    settings = read_toml(folder / SITE_FILE, SiteFile, DataError, absent)
    return Site(folder.resolve(), settings)


def server_of(site: Site) -> str:
    """Return a name for the server that a site answers; empty where it has joined none.

    It is the hash of the consortium's CA certificate, for an address may change.
    """
    try:
        certificate = (site.key_folder / CA_CERTIFICATE).read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(certificate).hexdigest()[:_SERVER_DIGITS]
