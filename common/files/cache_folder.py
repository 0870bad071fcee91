"""Where this machine keeps what can be fetched again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache: ``WARDROUND_CACHE``, else ``XDG_CACHE_HOME`` or ``~/.cache``."""
    chosen = os.environ.get("WARDROUND_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    general = os.environ.get("XDG_CACHE_HOME")
    return (Path(general) if general else Path.home() / ".cache") / "wardround"
