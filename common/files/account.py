"""The account that a folder belongs to: services run under it, and what they read stays its own."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import InputError, RunError, WardroundError, causes
from wardround.common.runtime.system import accounts
from wardround.common.runtime.system.required import require_linux

_ROOT = 0


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine."""

    number: int
    group: int

    @property
    def name(self) -> str:
        """Its name; its number where it has none, as in a container."""
        return accounts.name_of(self.number)

    @property
    def option(self) -> str:
        """How ``sudo -u`` takes it."""
        return self.name if not self.name.startswith("uid ") else f"'#{self.number}'"


def owner_of(path: Path) -> Account:
    """Return whose a file or a folder is.

    Raises:
        OSError: It is not there.
    """
    found = path.stat()
    return Account(found.st_uid, found.st_gid)


def this_account() -> Account:
    """Return the account that this process acts as."""
    return Account(*accounts.acting_numbers())


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Ask the file system as another account, where this process is root; else as what it is.

    For questions to the file system alone: even a module may not be readable for the other.
    """
    with accounts.acting_as(account.number, account.group):
        yield


@contextmanager
def started_as_owner(folder: Path, command: str) -> Iterator[None]:
    """Start a service on a folder, so that its files stay readable and systemd knows what to do.

    Args:
        command: What was typed, for the remedy.

    Raises:
        InputError: This is root, and the folder is another account's; or the system is not Linux.
        RunError: A file cannot be read or written: unlike a file that says something wrong, this
            may pass by itself, or with a chown, and a service that tries again goes on.
    """
    require_linux(f"'{command}'")
    with suppress(OSError):
        owner = owner_of(folder)
        if accounts.is_root() and owner.number != _ROOT:
            msg = (
                f"{folder} belongs to the account {owner.name} and this is root, whose files "
                f"{owner.name} could not read: sudo -u {owner.option} {command}"
            )
            raise InputError(msg)
    try:
        yield
    except WardroundError as error:
        if isinstance(error, RunError) or not _is_unreadable(error):
            raise
        raise RunError(str(error)) from error


def wrong_account(folder: Path) -> str:
    """Return the remedy for whoever cannot write in a folder: whose it is, and who asks."""
    with suppress(OSError):
        owner, asks = owner_of(folder), this_account()
        if owner.number != asks.number and asks.number != _ROOT:
            return (
                f"the folder is {owner.name}'s and this is {asks.name}, so sudo -u {owner.option}."
            )
    return "make room, and look whose the folder's files are (ls -l)."


def shown(*words: object) -> str:
    """Return a command that can be typed."""
    return " ".join(shlex.quote(str(word)) for word in words)


def _is_unreadable(error: WardroundError) -> bool:
    return any(
        isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        for cause in causes(error)
    )
