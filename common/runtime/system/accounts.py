"""The accounts of a system that has them: names, groups, and root that asks as another one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_ROOT = 0
_NOBODY = -1
_HAS_ACCOUNTS = hasattr(os, "geteuid")


def acting_numbers() -> tuple[int, int]:
    """Return account and group that this process acts as; -1 where there are none."""
    return (os.geteuid(), os.getegid()) if _HAS_ACCOUNTS else (_NOBODY, _NOBODY)


def is_root() -> bool:
    """Whether this process may do everything."""
    return _HAS_ACCOUNTS and os.geteuid() == _ROOT


def name_of(number: int) -> str:
    """Return an account's name; its number where it has none, as in a container."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"uid {number}"


@contextmanager
def acting_as(number: int, group: int) -> Iterator[None]:
    """Ask the file system as another account, where this process is root; else as what it is."""
    if not is_root() or number == _ROOT:
        yield
        return
    before, groups = os.getegid(), os.getgroups()
    try:
        os.setgroups(_groups_of(number, group))
        os.setegid(group)
        os.seteuid(number)
        yield
    finally:
        os.seteuid(_ROOT)
        os.setegid(before)
        os.setgroups(groups)


def _groups_of(number: int, group: int) -> list[int]:
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(number).pw_name, group)
    except KeyError:
        return [group]


def name_nameless_account() -> None:
    """Give this process a user name where its account has none, as a number in a container.

    torch asks for one when it is imported, and falls over an account that is in no database.
    """
    if os.name != "posix":
        return
    import getpass

    try:
        getpass.getuser()
    except (OSError, KeyError):
        os.environ["LOGNAME"] = f"uid-{os.geteuid()}"
