"""The table of faults: what is done to real processes, and what must come of it.

The numbers are those of the project's plan of reliability tests. Each fault is a function that does
it, and raises AssertionError where what comes of it is not what is expected.
"""

from tests.faults.table import (
    certificates,
    clocks,
    disks,
    ledgers,
    masks,
    messages,
    network,
    operation,
    server,
    sites,
)
from tests.faults.table.fault import Fault


def _place(fault: Fault) -> tuple[int, str]:
    return int(fault.number.rstrip("bcdefghij")), fault.number


FAULTS: tuple[Fault, ...] = tuple(
    sorted(
        (
            *server.FAULTS,
            *sites.FAULTS,
            *network.FAULTS,
            *disks.FAULTS,
            *ledgers.FAULTS,
            *messages.FAULTS,
            *clocks.FAULTS,
            *certificates.FAULTS,
            *operation.FAULTS,
            *masks.FAULTS,
        ),
        key=_place,
    )
)
