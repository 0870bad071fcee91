"""A new server folder: ``server.toml``, the consortium's CA, the server's certificate."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import tomli_w
from cryptography import x509
from pydantic import ValidationError

from wardround.common.errors import InputError
from wardround.common.files.atomic import (
    READABLE,
    keep_owner_of_folder,
    make_folder,
    put_in_place,
    write_new,
)
from wardround.common.files.validated_toml import explain_problems
from wardround.server.database import connect
from wardround.server.identity.lineage_key import open_lineage_key
from wardround.server.identity.membership import SCHEMA
from wardround.server.identity.pki import make_authority, save_authority
from wardround.server.identity.server_certificate import renew_server_certificate
from wardround.server.settings import SERVER_FILE, ServerFile


def init_server(
    folder: Path, name: str, public_names: Sequence[str], host: str, port: int
) -> x509.Certificate:
    """Make a server folder and return the CA's certificate; all of it is made, or nothing.

    Args:
        name: Of the consortium.
        public_names: Host names or addresses under which sites reach the server.
        host: Address that the public listener binds.

    Raises:
        InputError: The folder holds something, cannot be written, or a value cannot be used.
    """
    settings = _checked(name, public_names, host, port)
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} is there and holds something: give a folder that is new or empty."
        raise InputError(msg)
    try:
        make_folder(folder.parent)
        staged = Path(mkdtemp(prefix=".init-", dir=folder.parent))
        keep_owner_of_folder(staged)
    except OSError as error:
        raise InputError(_not_writable(folder, error)) from None
    try:
        ca = _fill(staged, settings)
        put_in_place(staged, folder)  # an empty folder may stand there
    except OSError as error:
        raise InputError(_not_writable(folder, error)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return ca


def _fill(folder: Path, settings: ServerFile) -> x509.Certificate:
    content = tomli_w.dumps(settings.model_dump(mode="json"))
    write_new(folder / SERVER_FILE, content.encode(), READABLE)
    authority = make_authority(settings.name)
    save_authority(folder, authority)
    open_lineage_key(folder)
    renew_server_certificate(folder)
    connect(folder, SCHEMA).close()
    return authority.certificate


def _checked(name: str, public_names: Sequence[str], host: str, port: int) -> ServerFile:
    try:
        return ServerFile(name=name, host=host, port=port, public_names=tuple(public_names))
    except ValidationError as error:
        raise InputError(explain_problems(error, ServerFile, "the new server")) from None


def _not_writable(folder: Path, error: OSError) -> str:
    return f"cannot make {folder} ({error.strerror}): make room, or choose another folder."
