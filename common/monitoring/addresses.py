"""Where a monitor is answered, and where traces go: the addresses that settings may name."""

import ipaddress
from typing import Annotated

from wardround.common.runtime.fields import OfForm

FROM_ENVIRONMENT = "environment"
_LARGEST_PORT = 65_535
MetricsAddress = Annotated[
    str,
    OfForm(
        r"^(((\d{1,3}\.){3}\d{1,3}|localhost|\[[0-9a-fA-F:.]+\]):[0-9]{1,5})?$",
        'an address of this machine and a port, e.g. 127.0.0.1:9464, or ""',
    ),
]
Endpoint = Annotated[
    str,
    OfForm(
        rf"^(|{FROM_ENVIRONMENT}|https?://[^\s/?#]+(:[0-9]{{1,5}})?(/\S*)?)$",
        f'an address such as "http://127.0.0.1:4318", "{FROM_ENVIRONMENT}" for what '
        'OTEL_EXPORTER_OTLP_ENDPOINT says, or ""',
    ),
]


def is_loopback(address: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    host = split_address(address)[0]
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def split_address(address: str) -> tuple[str, int]:
    """Return host and port; port 0 is one that the system picks.

    Raises:
        ValueError: The port is none.
    """
    host, _, port = address.rpartition(":")
    if not 0 <= int(port) <= _LARGEST_PORT:
        msg = f"{address} has no port from 1 to {_LARGEST_PORT}"
        raise ValueError(msg)
    return host.strip("[]"), int(port)
