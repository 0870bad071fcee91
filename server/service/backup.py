"""A backup of a server folder, made while the server runs, and the folder made from it again.

What is copied: ``server.toml``, ``peers.json``, ``ca/``, ``signing/``, the database by SQLite's own
means, and of each run what it has committed. The database comes first, so that every run in it has
its folder; of a run its commits come before its history, so that the history holds all that the
commits vouch for.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import wardround
from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import keep_owner_of_folder
from wardround.common.files.backup import (
    Backup,
    BackupWriter,
    is_whole,
    restored,
    write_backup,
)
from wardround.common.security.peers import PEERS_FILE
from wardround.common.security.tls_key_pair import mend_pair
from wardround.server.database import DATABASE_FILE, connect
from wardround.server.identity.lineage_key import LINEAGE_KEY_FOLDER
from wardround.server.identity.pki import CA_FOLDER, open_authority
from wardround.server.identity.server_certificate import SERVER_CERTIFICATE, SERVER_KEY
from wardround.server.scheduling.folder import CHECKPOINTS_FOLDER, RUNS_FOLDER
from wardround.server.scheduling.store import SCHEMA
from wardround.server.settings import SERVER_FILE, open_server

_TRIES = 20  # a commit goes while it is copied only where two newer ones are there


def back_up_server(folder: Path, file: Path) -> int:
    """Write a server folder to a file, whether its server runs or not; return how many files.

    Raises:
        InputError: It is no server folder, or the file is there.
        RunError: Something cannot be read or written.
    """
    server = open_server(folder).folder
    open_authority(server)

    def fill(writer: BackupWriter) -> None:
        with TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as place:
            keep_owner_of_folder(Path(place))
            copy = Path(place) / DATABASE_FILE
            _copy_database(server, copy)
            writer.add(copy, DATABASE_FILE)
        for name in (SERVER_FILE, PEERS_FILE):
            writer.add(server / name, name)
        for keys in (CA_FOLDER, LINEAGE_KEY_FOLDER):
            writer.add_tree(server / keys, keys, is_whole)
        for run in sorted((server / RUNS_FOLDER).glob("*")):
            _add_run(writer, run)

    return write_backup(file, "server", wardround.__version__, fill)


def restore_server(file: Path, folder: Path) -> Backup:
    """Make a server folder from a backup.

    Raises:
        InputError: It is no whole backup of a server, or the folder holds something.
        RunError: It cannot be written.
    """
    with restored(file, "server", folder) as (staged, backup):
        open_server(staged)
        open_authority(staged)
        mend_pair(staged / CA_FOLDER / SERVER_KEY, staged / CA_FOLDER / SERVER_CERTIFICATE)
        with closing(sqlite3.connect(staged / DATABASE_FILE)) as database:
            found = database.execute("PRAGMA integrity_check").fetchone()
        if found != ("ok",):
            msg = f"the database in {file} is damaged: give another backup."
            raise InputError(msg)
    return backup


def _copy_database(server: Path, copy: Path) -> None:
    try:
        with closing(connect(server, SCHEMA)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file
    except sqlite3.Error as error:
        msg = f"the server's database cannot be copied ({error}): check the disk."
        raise RunError(msg) from None


def _add_run(writer: BackupWriter, run: Path) -> None:
    name, commits = f"{RUNS_FOLDER}/{run.name}", run / CHECKPOINTS_FOLDER
    done: set[Path] = set()
    for _ in range(_TRIES):
        found = {path for path in commits.glob("round-*") if is_whole(path)} - done
        added = [_add_commit(writer, path, name) for path in sorted(found)]
        if not all(added):
            done |= found  # one was removed meanwhile, since a newer one is there
            continue
        break
    writer.add_tree(run, name, lambda path: is_whole(path) and not _is_in_commit(path, commits))


def _add_commit(writer: BackupWriter, commit: Path, name: str) -> bool:
    """Add a commit; what is left of one that goes meanwhile does not count when it is read."""
    files = sorted(commit.glob("*"))
    place = f"{name}/{CHECKPOINTS_FOLDER}/{commit.name}"
    added = [writer.add(path, f"{place}/{path.name}") for path in files]
    return bool(added) and all(added)


def _is_in_commit(path: Path, commits: Path) -> bool:
    return path.parent.parent == commits
