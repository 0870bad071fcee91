"""A Python on which wardround finds nothing that only POSIX has; put in front of PYTHONPATH.

What other packages and the standard library have stays: they have their own ways elsewhere, which
this system cannot take. So what is hidden is hidden from wardround's modules alone, by the modules
that they get when they import; forks are taken from everybody.
"""

import builtins
import multiprocessing
import multiprocessing.context
import os
import sys
from types import ModuleType
from typing import Any

NO_MODULES = {"fcntl", "pwd", "grp", "resource", "termios", "posix"}
HIDDEN = {
    "os": {
        *("fork", "geteuid", "getuid", "getegid", "getgid", "seteuid", "setegid", "setgroups"),
        *("getgroups", "getgrouplist", "fchown", "chown", "fchmod", "setsid", "killpg", "getpgid"),
        *("sched_getaffinity", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "pread"),
        *("pwrite", "mkfifo", "statvfs", "sysconf", "uname", "register_at_fork", "WNOHANG"),
    },
    "signal": {
        *("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGCONT", "SIGPIPE"),
        *("setitimer", "ITIMER_REAL", "pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK", "alarm"),
    },
    "socket": {"AF_UNIX"},
    "ctypes": {"CDLL"},
}


class _Hidden(ModuleType):
    """A module without some of its names."""

    def __init__(self, whole: ModuleType, missing: set[str]) -> None:
        super().__init__(whole.__name__)
        self.__dict__["_whole"], self.__dict__["_missing"] = whole, missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            msg = f"module {self.__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(self._whole, name)


_import, _hidden = builtins.__import__, {}


def _import_elsewhere(name: str, given: Any = None, *more: Any, **named: Any) -> ModuleType:
    importer = str((given or {}).get("__name__", ""))
    is_ours = importer == "__main__" or importer.partition(".")[0] == "wardround"
    if is_ours and name in NO_MODULES:
        raise ModuleNotFoundError(name=name)
    module = _import(name, given, *more, **named)
    if is_ours and name in HIDDEN:
        return _hidden.setdefault(name, _Hidden(module, HIDDEN[name]))
    return module


builtins.__import__ = _import_elsewhere
_get_context = multiprocessing.get_context


def _spawn_alone(method: str | None = None) -> Any:
    if method not in (None, "spawn"):
        msg = f"cannot find context for {method!r}"
        raise ValueError(msg)
    return _get_context("spawn")


multiprocessing.get_context = _spawn_alone
multiprocessing.get_all_start_methods = lambda: ["spawn"]
for _name in ("ForkContext", "ForkServerContext"):
    delattr(multiprocessing.context, _name)


def _no_fork() -> int:
    msg = "no fork on this system"
    raise AssertionError(msg)


os.fork = _no_fork
sys.stderr.write("posix is hidden\n")
