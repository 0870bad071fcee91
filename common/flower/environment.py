"""What a process with Flower in it is given: a folder of its own, and a version that was tested.

The switches against telemetry, update checks and installs are set when wardround is imported.
"""

import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path

from wardround.common.errors import RunError

# Each is tested by itself, and with the others on the wire: make test-flower.
TESTED_FLOWER = ("1.41", "1.42")
INSTALL_FLOWER = "pip install 'flwr>=1.41,<1.43'"
FLOWER_HEADER = "flwr-package-version"  # how each side says which it has
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}[0-9A-Za-z.+-]{0,24}", re.ASCII)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


def prepare_flower(home: Path) -> None:
    """Give Flower a folder for what it writes; to be called before Flower is imported.

    Raises:
        RunError: A version of Flower is installed that was not tested.
    """
    require_flower()
    os.environ.update(FLWR_HOME=str(home), UV_OFFLINE="1")


def require_flower() -> None:
    """Refuse a Flower that this code was not tested with.

    Raises:
        RunError: It is another version, or not installed.
    """
    try:
        found = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if not is_tested_flower(found):
        msg = (
            f"this wardround works with flwr {' and '.join(TESTED_FLOWER)}, and flwr {found} is "
            f"installed: {INSTALL_FLOWER}."
        )
        raise RunError(msg)


def is_tested_flower(version: str) -> bool:
    """Return whether this code was tested with a Flower, here or on the other side of the wire."""
    return ".".join(version.split(".")[:2]) in TESTED_FLOWER


def plain_version(said: str) -> str:
    """Return a version as somebody else said it, or that it is none: it goes into a log."""
    return said if _VERSION.fullmatch(said) else "of no readable version"


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that calls this machine alone."""
    return {name: value for name, value in environment.items() if name.lower() not in _PROXIES}
