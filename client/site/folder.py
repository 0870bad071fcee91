"""The site folder: who the hospital is, where its data lies, on what it trains.

A folder holds ``site.toml``, ``manifest.csv`` and what the site keeps for itself in ``state/``.
A simulated site is such a folder too.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.errors import DataError
from wardround.common.files.validated_toml import read_toml
from wardround.common.study.sections import Name, Shift

KEY_FOLDER = "keys"


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
    """Where the server is that a site has joined: "name:port"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")]


class SiteFile(BaseModel):
    """The content of ``site.toml``.

    Attributes:
        server: The server that the site has joined; a simulated site has none.
        data_root: Folder that relative paths of the manifest start from; the site folder if absent.
        device: "auto" takes a GPU where there is one, but for tables.
        cache_gigabytes: Memory for prepared images; beyond it they are kept on disk.
        shift: How a simulated scanner differs; never set for a real hospital.
        shift_seed: Seed of that difference.
        scanners: Scanners by name, for a site with more than one: the manifest's column ``scanner``
            picks one a row; a row that names none has ``shift`` and ``shift_seed``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name
    manifest: str = "manifest.csv"
    data_root: str | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    cache_gigabytes: Annotated[float, Field(gt=0)] = 4.0
    cache_place: Literal["memory", "disk"] = "memory"
    skip_unreadable: bool = False
    shift: tuple[Shift, ...] = ()
    shift_seed: int = 0
    scanners: dict[Name, Scanner] = Field(default_factory=dict)
    server: ServerTable | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """An opened site folder."""

    folder: Path
    settings: SiteFile

    @property
    def name(self) -> str:
        """The site's name, as the server knows it."""
        return self.settings.name

    @property
    def manifest_path(self) -> Path:
        """Where the manifest lies."""
        return self.folder / self.settings.manifest

    @property
    def data_root(self) -> Path:
        """Folder that relative paths of the manifest start from."""
        return (self.folder / (self.settings.data_root or ".")).resolve()

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
    """
    folder = Path(folder)
    absent = (
        f"{folder} is not a site folder: it has no site.toml. "
        "Give a folder that 'wardround split' wrote, or write a site.toml with a name."
    )
    settings = read_toml(folder / "site.toml", SiteFile, DataError, absent)
    return Site(folder.resolve(), settings)
