"""What a process with Flower in it is given: a folder of its own, and the version that was tested.

The switches against telemetry, update checks and installs are set when wardround is imported.
"""

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path

from wardround.common.errors import RunError

TESTED_FLOWER = "1.41"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


def prepare_flower(home: Path) -> None:
    """Give Flower a folder for what it writes; to be called before Flower is imported.

    Raises:
        RunError: Another version of Flower is installed.
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
    if found.split(".")[:2] != TESTED_FLOWER.split("."):
        msg = (
            f"this wardround works with flwr {TESTED_FLOWER}.*, and flwr {found} is installed: "
            f"pip install 'flwr=={TESTED_FLOWER}.*'."
        )
        raise RunError(msg)


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that calls this machine alone."""
    return {name: value for name, value in environment.items() if name.lower() not in _PROXIES}
