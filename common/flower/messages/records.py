"""The records of a message's content, by name and kind.

Flower's own views (``content.array_records``) hold the content while the content holds them, so
that it stays in memory until Python next looks for such circles: a server would pile up the answers
of many sites. Nothing here outlives the content.
"""

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict


def arrays_of(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return the records of arrays."""
    return {n: record for n, record in content.items() if isinstance(record, ArrayRecord)}


def configs_of(content: RecordDict) -> dict[str, ConfigRecord]:
    """Return the records of settings."""
    return {n: record for n, record in content.items() if isinstance(record, ConfigRecord)}


def metrics_of(content: RecordDict) -> dict[str, MetricRecord]:
    """Return the records of numbers."""
    return {n: record for n, record in content.items() if isinstance(record, MetricRecord)}


def array_bytes(content: RecordDict) -> int:
    """Return the size of all arrays as they travel."""
    return sum(record.count_bytes() for record in arrays_of(content).values())
