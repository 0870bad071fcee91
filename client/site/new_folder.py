"""What a site that joins gets: its folder, its keys and a cautious policy; all of it, or nothing.

Everything is written to a folder beside the place first, so that a full disk or a folder that
cannot be written shows itself before the invitation is used.
"""

import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.client.policy.policy import POLICY_FILE
from wardround.client.policy.template import TEMPLATE
from wardround.client.site.credentials import (
    NODE_KEY,
    TLS_CERTIFICATE,
    TLS_KEY,
    make_node_key,
    make_tls_key,
)
from wardround.client.site.folder import CA_CERTIFICATE, KEY_FOLDER, open_site
from wardround.common.errors import InputError
from wardround.common.files.atomic import (
    READABLE,
    flush_folder,
    make_private_folder,
    put_in_place,
    write_new,
)
from wardround.common.security.join_token import JoinToken
from wardround.common.security.tls_key_pair import private_pem, read_private_key

SITE_FILE = "site.toml"
MANIFEST_EXAMPLE = "manifest.example.csv"
_MANIFEST_HEADER = "patient,image,label,split\n"
_KEPT = (POLICY_FILE, MANIFEST_EXAMPLE)  # where they are there already


@dataclass(frozen=True, slots=True)
class NewSiteFolder:
    """A site folder, ready to be put in its place.

    Attributes:
        folder: Its place.
        staged: Where it is now.
    """

    folder: Path
    staged: Path
    tls_key: ec.EllipticCurvePrivateKey
    node_key: ec.EllipticCurvePrivateKey

    def add_certificates(self, certificate: x509.Certificate, ca: x509.Certificate) -> None:
        """Write the certificates that the server gave.

        Raises:
            OSError: The disk is full, say.
        """
        keys = self.staged / KEY_FOLDER
        write_new(keys / TLS_CERTIFICATE, certificate.public_bytes(Encoding.PEM), READABLE)
        write_new(keys / CA_CERTIFICATE, ca.public_bytes(Encoding.PEM), READABLE)

    def install(self) -> None:
        """Put the folder, or what an existing one lacks, in its place.

        Raises:
            OSError: It cannot be; what was there is there again.
        """
        if not self.folder.exists():
            put_in_place(self.staged, self.folder)
            return
        make_private_folder(self.folder / KEY_FOLDER)
        names = [path.relative_to(self.staged) for path in self._files()]
        _exchange([name for name in names if not self._is_kept(name)], self.staged, self.folder)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.staged.rglob("*") if path.is_file())

    def _is_kept(self, name: Path) -> bool:
        return str(name) in _KEPT and (self.folder / name).exists()


@contextmanager
def prepare_new_folder(
    folder: Path, token: JoinToken, ledger: Path | None = None
) -> Iterator[NewSiteFolder]:
    """Write a site folder beside its place; what is not installed is removed.

    Args:
        ledger: The ledger folder that it shares with another site folder; None for its own.

    Raises:
        InputError: Nothing can be written there.
    """
    folder = folder.resolve()
    parent = folder if folder.is_dir() else folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staged = Path(mkdtemp(prefix=".joining-", dir=parent))
    except OSError as error:
        raise InputError(_not_writable(parent, error)) from None
    try:
        yield _write(
            NewSiteFolder(folder, staged, make_tls_key(), _node_key(folder)), token, ledger
        )
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_can_join(folder: Path, token: JoinToken, again: bool, ledger: Path | None = None) -> None:
    """Refuse a folder that is another site's, has joined, or cannot become a site folder.

    Args:
        ledger: The ledger folder that it is to share; None for what it has.

    Raises:
        InputError: Says which.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is not a folder: give the place of the site folder."
        raise InputError(msg)
    if not (folder / SITE_FILE).exists():
        return
    site = open_site(folder)
    if site.name != token.site:
        msg = (
            f"the invitation is for {token.site!r} and {folder} is the folder of {site.name!r}: "
            "give another --folder, or ask for an invitation of that name."
        )
        raise InputError(msg)
    if ledger is not None and ledger != site.ledger_folder and site.ledger_folder.exists():
        msg = (
            f"{folder} has a ledger already, {site.ledger_folder}, and what it holds would be "
            "forgotten: leave out --ledger-of, or see docs/concepts/ledger.md for two ledgers."
        )
        raise InputError(msg)
    if (site.key_folder / TLS_CERTIFICATE).exists() and not again:
        msg = (
            f"{folder} has joined a server already: 'wardround site renew {folder}' renews its "
            "certificate; with --again it joins anew."
        )
        raise InputError(msg)
    if site.settings.server is not None and site.settings.server.address != token.address:
        msg = (
            f"{folder / SITE_FILE} names the server {site.settings.server.address} and the "
            f"invitation is from {token.address}: remove the table [server] to change servers."
        )
        raise InputError(msg)


def _write(new_folder: NewSiteFolder, token: JoinToken, ledger: Path | None) -> NewSiteFolder:
    """Write all but the certificates.

    Raises:
        InputError: It cannot be written.
    """
    keys, staged = new_folder.staged / KEY_FOLDER, new_folder.staged
    try:
        make_private_folder(keys)
        write_new(keys / TLS_KEY, private_pem(new_folder.tls_key))
        if not (new_folder.folder / KEY_FOLDER / NODE_KEY).exists():
            write_new(keys / NODE_KEY, private_pem(new_folder.node_key))
        site_file = _site_file(new_folder.folder, token, ledger)
        write_new(staged / SITE_FILE, site_file.encode(), READABLE)
        write_new(staged / POLICY_FILE, TEMPLATE.encode(), READABLE)
        write_new(staged / MANIFEST_EXAMPLE, _MANIFEST_HEADER.encode(), READABLE)
    except OSError as error:
        raise InputError(_not_writable(staged.parent, error)) from None
    return new_folder


def _node_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Return the node key that the site has: it stays the same node of the federation."""
    path = folder / KEY_FOLDER / NODE_KEY
    return read_private_key(path) if path.exists() else make_node_key()


def _site_file(folder: Path, token: JoinToken, ledger: Path | None) -> str:
    """Return ``site.toml`` with the server's address; what is in it already stays as it is."""
    shared = {} if ledger is None else {"ledger": os.path.relpath(ledger, folder)}
    table = tomli_w.dumps({"server": {"address": token.address}})
    path = folder / SITE_FILE
    if not path.exists():
        return tomli_w.dumps({"name": token.site, **shared}) + "\n" + table
    text = path.read_text(encoding="utf-8")
    if "ledger" not in tomllib.loads(text):
        text = tomli_w.dumps(shared) + text  # above all tables
    if "server" in tomllib.loads(text):
        return text
    return text.rstrip("\n") + "\n\n" + table


def _exchange(names: list[Path], source: Path, target: Path) -> None:
    """Put files in the places of others; where one cannot be, all are as they were."""
    kept = source / "replaced"
    kept.mkdir()
    done: list[tuple[Path, Path | None]] = []
    try:
        for number, name in enumerate(names):
            old = kept / str(number) if (target / name).exists() else None
            if old is not None:
                os.link(target / name, old)
            (source / name).replace(target / name)
            done.append((name, old))
        flush_folder(target / KEY_FOLDER)
        flush_folder(target)
    except OSError:
        for name, old in reversed(done):
            with suppress(OSError):
                (target / name).unlink() if old is None else old.replace(target / name)
        raise


def _not_writable(folder: Path, error: OSError) -> str:
    return (
        f"cannot write below {folder} ({error.strerror}): make room, or choose another --folder. "
        "The server was not asked."
    )
