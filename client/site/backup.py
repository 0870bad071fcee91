"""A backup of a site folder, made while its daemon runs, and the folder made from it again.

The private keys go into it only if asked. Without them the site joins anew, and signs a new audit
log: the one in the backup goes to ``former/`` with the public key that it is verified with.
"""

from pathlib import Path

import wardround
from wardround.client.policy.approvals import APPROVALS_FILE
from wardround.client.policy.monitoring_word import FOLDER as MONITORING_FOLDER
from wardround.client.policy.policy import POLICY_FILE
from wardround.client.site.credentials import NODE_KEY
from wardround.client.site.folder import KEY_FOLDER, REVIEW_FOLDER, open_site
from wardround.client.site.idle_masks import MASKING_FOLDER
from wardround.client.site.masked_once import MODELS, UPDATES
from wardround.client.site.new_folder import MANIFEST_EXAMPLE, SITE_FILE
from wardround.common.files.atomic import make_private_folder
from wardround.common.files.backup import (
    Backup,
    BackupWriter,
    is_whole,
    restored,
    write_backup,
)
from wardround.common.security.peers import PEERS_FILE
from wardround.common.security.signing_key import PUBLIC_FILE

FORMER_FOLDER = "former"
_AUDIT = "audit"
# Not what lies beside them: images as they come from the archive.
_IMPORT = ("import/secret.key", "import/journal.jsonl")
# Hashes of what was masked, and not the secrets of the round in hand: a site that comes back leaves
# that round.
_MASKED = tuple(f"{MASKING_FOLDER}/{name}" for name in (UPDATES, MODELS))
_FILES = (
    SITE_FILE,
    POLICY_FILE,
    APPROVALS_FILE,
    MANIFEST_EXAMPLE,
    "unlabelled.csv",
    PEERS_FILE,
    *_IMPORT,
    *_MASKED,
)
# The ledger comes last, so that it holds the charge of all that was copied before.
_FOLDERS = (
    "parts",
    REVIEW_FOLDER,
    "studies",
    "rounds",
    "evaluations",
    "received",
    "outbox",
    _AUDIT,
    FORMER_FOLDER,
    "ledger",
)
_KEPT_STATE = (".safetensors", ".toml")  # what it remembers of runs, and studies that wait


def back_up_site(folder: Path, file: Path, with_keys: bool) -> int:
    """Write a site folder to a file, whether its daemon runs or not; return how many files.

    Images are not part of it, nor a manifest that lies elsewhere.

    Raises:
        DataError: It is no site folder.
        InputError: The file is there.
        RunError: Something cannot be read or written.
    """
    site = open_site(folder)

    def fill(writer: BackupWriter) -> None:
        names = dict.fromkeys((*_FILES, site.settings.manifest))
        for path in (site.folder / name for name in names):
            if path.is_relative_to(site.folder) and ".." not in path.parts:
                writer.add(path, path.relative_to(site.folder).as_posix())
        writer.add_tree(
            site.state_folder, "state", lambda path: is_whole(path) and path.suffix in _KEPT_STATE
        )
        monitoring = site.state_folder / MONITORING_FOLDER
        writer.add_tree(monitoring, f"state/{MONITORING_FOLDER}", is_whole)
        keys = site.key_folder
        writer.add_tree(
            keys,
            KEY_FOLDER,
            lambda path: is_whole(path) and (with_keys or path.name == PUBLIC_FILE),
        )
        for name in _FOLDERS:
            writer.add_tree(site.folder / name, name, is_whole)

    return write_backup(file, "site", wardround.__version__, fill)


def restore_site(file: Path, folder: Path) -> tuple[Backup, bool]:
    """Make a site folder from a backup; return what it says of itself, and whether it has keys.

    Raises:
        DataError: What the backup holds is no site folder.
        InputError: It is no whole backup of a site, or the folder holds something.
        RunError: It cannot be written.
    """
    with restored(file, "site", folder) as (staged, backup):
        open_site(staged)
        has_keys = (staged / KEY_FOLDER / NODE_KEY).exists()
        if not has_keys:
            _put_log_aside(staged, f"{backup.written:%Y-%m-%dT%H%M%S}")
    return backup, has_keys


def _put_log_aside(folder: Path, date: str) -> None:
    """Leave room for a log that another key signs; 'site audit verify' takes the new place."""
    public = folder / KEY_FOLDER / PUBLIC_FILE
    if not (folder / _AUDIT).exists():
        public.unlink(missing_ok=True)
        return
    former = folder / FORMER_FOLDER / date
    make_private_folder(former)
    (folder / _AUDIT).rename(former / _AUDIT)
    if public.exists():
        (folder / KEY_FOLDER).rename(former / KEY_FOLDER)
