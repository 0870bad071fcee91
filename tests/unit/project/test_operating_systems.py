"""What only some operating systems have is asked for in one room, and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
ROOM = "common/runtime/system/"
PACKAGES = ("client", "common", "server", "simulations", "src/wardround/commands")
MODULES = {
    *("_posixsubprocess", "ctypes", "fcntl", "grp", "posix", "pty", "pwd", "resource"),
    *("signal", "syslog", "termios", "tty", "winreg", "msvcrt", "_winapi"),
}
OF_OS = {
    *("fork", "forkpty", "kill", "killpg", "setsid", "setpgid", "getpgid", "getpgrp", "setpgrp"),
    *("waitpid", "wait", "wait3", "wait4", "waitstatus_to_exitcode", "posix_spawn", "pidfd_open"),
    *("getuid", "geteuid", "getgid", "getegid", "setuid", "seteuid", "setgid", "setegid"),
    *("getgroups", "setgroups", "getgrouplist", "initgroups", "getlogin"),
    *("umask", "chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "access"),
    *("sched_getaffinity", "sched_setaffinity", "nice", "getloadavg", "sysconf", "uname"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_SYNC", "O_BINARY", "O_TMPFILE"),
    *("pread", "pwrite", "preadv", "pwritev", "mkfifo", "mknod", "statvfs", "posix_fadvise"),
    *(
        "memfd_create",
        "MFD_CLOEXEC",
        "register_at_fork",
        "set_blocking",
        "eventfd",
        "ttyname",
        "ctermid",
    ),
    *("name", "supports_dir_fd", "supports_effective_ids", "supports_fd", "WNOHANG"),
}
OF_OTHERS = {
    "socket": {"AF_UNIX", "SO_PEERCRED", "SCM_RIGHTS", "send_fds", "recv_fds", "AF_NETLINK"},
    "sys": {"platform", "getwindowsversion", "abiflags"},
    "asyncio": {"open_unix_connection", "start_unix_server"},
    "multiprocessing": {"get_context", "get_start_method", "set_start_method", "context"},
}
# Methods and arguments that mean the same.
METHODS = {"add_signal_handler", "create_unix_server", "create_unix_connection", "prctl", "mallopt"}
ARGUMENTS = {"preexec_fn", "pass_fds", "start_new_session", "process_group", "dir_fd", "umask"}
PLACES = ("/proc", "/dev/shm", "/tmp", "/etc/", "/var/run", "/sys/")
# A mode that is asked for binds where the system has modes; nothing depends on it.
ALLOWED = {
    "simulations/datasets/brain_tissue.py": {"chmod"},
    "src/wardround/commands/bundle_wheels.py": {"chmod"},
    "simulations/notebook/lockstep.py": {"ctypes"},  # CPython's own interface, on every system
}


def source_files() -> list[Path]:
    files = [p for name in PACKAGES for p in (REPOSITORY / name).rglob("*.py")]
    files.append(REPOSITORY / "src" / "wardround" / "cli.py")
    return [path for path in files if not path.name.endswith("_pb2.py")]


def found_in(tree: ast.AST) -> Iterator[str]:
    """Yield what a file asks of one operating system."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from _from_module(node)
        elif isinstance(node, ast.Attribute):
            yield from _attribute(node)
        elif isinstance(node, ast.Call):
            yield from _asked_by_name(node)
    yield from (k.arg for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg in ARGUMENTS)
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    yield from (text for text in texts if isinstance(text, str) and text.startswith(PLACES))


def _from_module(node: ast.ImportFrom) -> Iterator[str]:
    module = node.module or ""
    names = {alias.name for alias in node.names}
    if module.partition(".")[0] in MODULES:
        yield module
    yield from names & (OF_OS if module == "os" else OF_OTHERS.get(module, set()))
    if module == "multiprocessing.context":
        yield module


def _attribute(node: ast.Attribute) -> Iterator[str]:
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    of_owner = OF_OS if owner == "os" else OF_OTHERS.get(owner, set())
    if node.attr in METHODS or node.attr in of_owner or node.attr in ("chmod", "lchmod"):
        yield node.attr


def _asked_by_name(node: ast.Call) -> Iterator[str]:
    """Yield ``getattr(os, "fork")``, ``hasattr(os, "fork")`` and ``import_module("fcntl")``."""
    words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if called in ("import_module", "__import__", "find_spec"):
        yield from (word for word in words if word in MODULES)
    if called in ("getattr", "hasattr") and isinstance(node.args[0], ast.Name):
        owner = node.args[0].id
        wanted = OF_OS if owner == "os" else OF_OTHERS.get(owner, set())
        yield from (word for word in words if word in wanted)


def test_only_one_room_asks_for_what_not_every_system_has() -> None:
    found = {}
    for path in source_files():
        name = path.relative_to(REPOSITORY).as_posix()
        if name.startswith(ROOM):
            continue
        asked = set(found_in(ast.parse(path.read_text(encoding="utf-8"))))
        if rest := asked - ALLOWED.get(name, set()):
            found[name] = sorted(rest)
    assert not found, f"ask wardround.common.runtime.system instead: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "from signal import SIGKILL",
        "def f():\n    import pwd",
        "import os\nos.fork()",
        "from os import O_NOFOLLOW",
        "hasattr(os, 'geteuid')",
        "import_module('resource')",
        "socket.socket(socket.AF_UNIX)",
        "loop.add_signal_handler(15, stop)",
        "subprocess.Popen(x, start_new_session=True)",
        "open('/proc/self/maps')",
        "multiprocessing.get_context('fork')",
        "if sys.platform == 'linux': pass",
        "path.chmod(0o600)",
    ],
)
def test_the_scan_finds_what_it_is_there_for(line: str) -> None:
    assert list(found_in(ast.parse(line)))


def test_files_are_opened_as_bytes_that_stay_as_they_are() -> None:
    """``os.open`` changes line ends on Windows, unless it is told not to: the room's flag tells."""
    texts = {path: path.read_text(encoding="utf-8") for path in source_files()}
    opening = [path for path, text in texts.items() if " os.open(" in text]
    assert opening
    assert not [path for path in opening if "PLAINLY" not in texts[path]]
