"""The user's own file: to which trackers the numbers of a run go. No study can say that.

It lies at ``~/.config/wardround/user.toml`` (``XDG_CONFIG_HOME`` counts), or where
``WARDROUND_USER_FILE`` or ``--track`` says. ``WARDROUND_USER_FILE=`` (empty) is none at all.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from wardround.common.errors import InputError
from wardround.common.files.validated_toml import read_toml
from wardround.common.monitoring.addresses import Endpoint
from wardround.common.runtime.fields import OfForm

USER_FILE_VARIABLE = "WARDROUND_USER_FILE"
_FORM = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
# No system takes a name with the character 0.
_Text = Annotated[
    str, Field(min_length=1, max_length=1000), OfForm(r"[^\0]*", "a text with no character 0")
]


def _reached(address: str) -> str:
    """Return an address that is a folder's, or a server's with a host and a port that can be."""
    with suppress(ValueError):  # a port that is none, a bracket that is left open
        parts = urlsplit(address)
        if not _is_server(parts.scheme) or (
            "://" in address and parts.hostname and parts.port != 0
        ):
            return address
    kind, sentence = "mlflow_address", "it must be {words}"
    words = 'a folder, or a server\'s whole address such as "https://mlflow.example.org:5000"'
    raise PydanticCustomError(kind, sentence, {"words": words})


def _is_server(scheme: str) -> bool:
    return scheme not in ("", "file") and len(scheme) > 1  # one letter is a drive of Windows


class MlflowTable(BaseModel):
    """Where MLflow's runs go.

    Attributes:
        address: A folder, or a server: "https://mlflow.example.org".
        experiment: In which they stand.
        models: Whether the model is kept there too.
    """

    model_config = _FORM

    address: Annotated[_Text, AfterValidator(_reached)]
    experiment: _Text = "wardround"
    models: bool = True

    @property
    def is_server(self) -> bool:
        """Whether it is reached over a network."""
        return _is_server(urlsplit(self.address).scheme)

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.address)
        if not self.is_server:
            return parts.path if parts.scheme in ("", "file") else self.address
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"


class TensorboardTable(BaseModel):
    """Where TensorBoard's event files go."""

    model_config = _FORM

    folder: _Text


class WandbTable(BaseModel):
    """Weights & Biases.

    Attributes:
        folder: In which it makes its folder ``wandb``.
        online: Whether anything is sent; else files are left for ``wandb sync``.
        models: Whether the model is kept there too.
    """

    model_config = _FORM

    folder: _Text
    project: Annotated[str, Field(min_length=1, max_length=128)] = "wardround"
    online: bool = False
    models: bool = False


class TrackTable(BaseModel):
    """The trackers; one that has no table is told nothing."""

    model_config = _FORM

    mlflow: MlflowTable | None = None
    tensorboard: TensorboardTable | None = None
    wandb: WandbTable | None = None


class TracesTable(BaseModel):
    """OpenTelemetry: where the spans of a run go; "" is nowhere."""

    model_config = _FORM

    endpoint: Endpoint = ""


class UserFile(BaseModel):
    """The content of the file; an unknown key is refused."""

    model_config = _FORM

    track: TrackTable = TrackTable()
    traces: TracesTable = TracesTable()

    @property
    def is_silent(self) -> bool:
        """Whether nobody is told anything."""
        track = self.track
        tables = (track.mlflow, track.tensorboard, track.wandb)
        return not any(tables) and not self.traces.endpoint


def find_user_file(given: Path | None = None) -> Path | None:
    """Return the user's file; None where there is none, or none is wanted.

    Args:
        given: What the command line names.

    Raises:
        InputError: A file that was named is not there.
    """
    named = os.environ.get(USER_FILE_VARIABLE) if given is None else str(given)
    if named == "":
        return None
    if named is not None:
        path = Path(named)
        with suppress(RuntimeError):  # "~name" of nobody
            path = path.expanduser()
        if not path.is_file():
            how = "--track" if given is not None else USER_FILE_VARIABLE
            msg = f"{how} names {path}, which is no file: name one that has a table [track]."
            raise InputError(msg)
        return path.resolve()
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(home) / "wardround" / "user.toml"
    return path.resolve() if path.is_file() else None


def read_user_file(path: Path | None) -> UserFile:
    """Read the user's file; relative folders in it start where it lies.

    Raises:
        InputError: It cannot be read, or says something unknown.
    """
    if path is None:
        return UserFile()
    content = read_toml(path, UserFile, InputError, f"{path} is gone: name another file.")
    track = content.track
    placed = TrackTable(
        mlflow=track.mlflow and _placed_mlflow(track.mlflow, path.parent),
        tensorboard=track.tensorboard
        and TensorboardTable(folder=_placed(track.tensorboard.folder, path.parent)),
        wandb=track.wandb
        and track.wandb.model_copy(update={"folder": _placed(track.wandb.folder, path.parent)}),
    )
    return content.model_copy(update={"track": placed})


def _placed_mlflow(table: MlflowTable, start: Path) -> MlflowTable:
    if table.is_server:
        return table
    path = urlsplit(table.address).path if table.address.startswith("file:") else table.address
    return table.model_copy(update={"address": (Path(_placed(path, start))).as_uri()})


def _placed(folder: str, start: Path) -> str:
    try:
        return str((start / Path(folder).expanduser()).resolve())
    except RuntimeError:
        msg = f"{folder} cannot be found: there is no home folder of that name. Write it whole."
        raise InputError(msg) from None


def require_trackers(given: Path | None) -> TrackTable:
    """Return the trackers of the user's file, for a command that does nothing without any.

    Raises:
        InputError: There is no such file, it cannot be used, or it names none.
    """
    path = find_user_file(given)
    table = read_user_file(path).track
    if not any((table.mlflow, table.tensorboard, table.wandb)):
        where = (
            "there is no file ~/.config/wardround/user.toml"
            if path is None
            else f"{path} names none"
        )
        msg = (
            f"no tracker is named: {where}. Write a table such as [track.mlflow] with "
            'address = "FOLDER" into a file, and name it with --track.'
        )
        raise InputError(msg)
    return table
