"""The doctor's check of the account: can the site's own use all files of its folder?

A daemon refuses what it cannot read; typed as root, all of it could be read.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from wardround.client.doctor.check import FaultError
from wardround.client.policy.approvals import APPROVALS_FILE
from wardround.client.policy.policy import POLICY_FILE
from wardround.client.site.folder import KEY_FOLDER, Site
from wardround.common.files.account import acting_as, owner_of, shown, this_account
from wardround.common.runtime.system.files import may_use

_READ = ("site.toml", POLICY_FILE, APPROVALS_FILE)
_WRITTEN = (KEY_FOLDER, "ledger", "audit", "parts", "outbox", "state")
_MOST_FILES = 2_000  # a cache of prepared images may hold many more
_SHOWN = 4


def check_account(site: Site) -> str:
    """Whether the account that the folder belongs to can use what is in it.

    Raises:
        FaultError: It cannot; or this is neither that account nor root: a warning.
    """
    owner, asks = owner_of(site.folder), this_account()
    used = (one for one in _wanted(site) if os.path.lexists(one[0]))
    wanted = list(islice(used, _MOST_FILES))
    with acting_as(owner):
        open_to_it = [may_use(path, mode) for path, mode in wanted]
    asked = zip(wanted, open_to_it, strict=True)
    closed = list(dict.fromkeys(path for (path, _), is_open in asked if not is_open))
    if asks.number not in (owner.number, 0):
        fact = f"the folder is {owner.name}'s and this is {asks.name}"
        remedy = f"run sudo -u {owner.option} {shown('wardround', 'site', 'doctor', site.folder)}"
        raise FaultError(fact=fact, remedy=remedy, status="warn")
    if closed:
        names = [str(path.relative_to(site.folder)) for path in closed]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        fact = f"{owner.name}, under whom the daemon runs, cannot use {', '.join(names[:_SHOWN])}"
        files = shown(*closed[:_SHOWN])
        remedy = f"sudo chown {owner.number}:{owner.group} {files}; and chmod u+rw"
        raise FaultError(fact=f"{fact}{more}", remedy=remedy)
    return f"the daemon runs under {owner.name}, who can use all files of the folder"


def _wanted(site: Site) -> Iterator[tuple[Path, int]]:
    """Yield what the daemon uses, and how."""
    yield site.folder, os.R_OK | os.W_OK | os.X_OK
    for name in (*_READ, site.settings.manifest):
        path = site.folder / name
        if path.is_relative_to(site.folder):
            yield path, os.R_OK
    for name in _WRITTEN:
        yield site.folder / name, os.R_OK | os.W_OK | os.X_OK
        for path in sorted((site.folder / name).rglob("*")):
            # A key, its certificate and a settled file are read, or replaced as a whole.
            yield path, os.R_OK | (os.W_OK | os.X_OK if path.is_dir() else 0)
            if path.suffix == ".jsonl" or path.name.endswith("lock"):
                yield path, os.W_OK
