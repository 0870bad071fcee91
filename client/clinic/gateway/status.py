"""What a gateway does, for whoever asks from outside: counts and reasons, nothing of patients."""

from pathlib import Path

from wardround.client.clinic.gateway.queue import WorkQueue
from wardround.client.clinic.gateway.serving import LOCK_FILE, QUEUE_FILE, gateway_folder
from wardround.common.errors import InputError
from wardround.common.runtime.system.files import is_locked


def open_queue(site: Path) -> WorkQueue:
    """Open the queue of a site whose gateway has run.

    Raises:
        InputError: None has.
    """
    path = gateway_folder(site) / QUEUE_FILE
    if not path.is_file():
        msg = f"nothing was served from {site} yet: start it with --model."
        raise InputError(msg)
    return WorkQueue(path)


def is_serving(site: Path) -> bool:
    """Whether a gateway is at work now."""
    return is_locked(gateway_folder(site) / LOCK_FILE)
