"""Prometheus metrics from measurements: a registry of our own, families made when it is read."""

import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from wardround.common.errors import install_command
from wardround.common.monitoring.listener import MetricsListener

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

logger = logging.getLogger(__name__)
Part = Callable[[], "Iterable[Metric]"]
_KEPT_SECONDS = 1.0  # several monitors that ask at once are told the same
_LONGEST_LABEL, _MOST_VALUES = 64, 500
OTHER = "other"


class Measurements:
    """A collector of parts; one that fails is left out, and counted."""

    def __init__(self, prefix: str, parts: Sequence[Part]) -> None:
        self._prefix, self._parts = prefix, parts
        self._kept: list[Metric] = []
        self._measured = -_KEPT_SECONDS

    def collect(self) -> "Iterable[Metric]":
        """Measure, unless that was done a moment ago."""
        if time.monotonic() - self._measured >= _KEPT_SECONDS:
            self._kept, self._measured = list(self._measure()), time.monotonic()
        return self._kept

    def describe(self) -> "Iterable[Metric]":
        """Return nothing, so that registering measures nothing."""
        return ()

    def _measure(self) -> "Iterable[Metric]":
        failed = 0
        for part in self._parts:
            try:
                yield from list(part())
            except Exception as error:
                failed += 1
                logger.warning("a part of the metrics failed: %s", type(error).__name__)
        yield gauge(f"{self._prefix}_unmeasured_parts", "Parts that could not be measured.", failed)


def gauge(name: str, text: str, value: float) -> "Metric":
    """Return a family of one value."""
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> "Metric":
    """Return a family of a value a label."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in bounded(values).items():
        family.add_metric([key], value)
    return family


def counter(name: str, text: str, value: float) -> "Metric":
    """Return a counter; its name gets the ending ``_total``."""
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> "Metric":
    """Return a counter a label."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in bounded(values).items():
        family.add_metric([key], value)
    return family


def versions(name: str, **values: str) -> "Metric":
    """Return what runs there, as labels of a 1."""
    from prometheus_client.core import InfoMetricFamily

    return InfoMetricFamily(name, "What runs.", {"python": platform.python_version(), **values})


def bounded(values: Mapping[str, float]) -> dict[str, float]:
    """Return values by labels that cannot grow without end: the rest is added up as "other"."""
    kept: dict[str, float] = {}
    for key in sorted(values):
        label = key[:_LONGEST_LABEL] if len(kept) < _MOST_VALUES else OTHER
        kept[label] = kept.get(label, 0.0) + values[key]
    return kept


def registry_of(measurements: Measurements) -> "CollectorRegistry":
    """Return a registry of measurements and of this process, and of nothing else."""
    from prometheus_client import ProcessCollector
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(measurements)
    ProcessCollector(registry=registry)
    return registry


def served(address: str, prefix: str, parts: Sequence[Part]) -> MetricsListener | None:
    """Serve measurements on an address; None where that fails, which is logged and ends nothing.

    Args:
        address: See :data:`MetricsAddress`; "" is nowhere.
        prefix: Of the names, e.g. "wardround_server".
    """
    if not address:
        return None
    try:
        registry = registry_of(Measurements(prefix, parts))
        listener = MetricsListener(address, lambda accept: _rendered(registry, accept))
    except ImportError:
        logger.warning("no metrics are served: run %s", install_command("monitor"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        logger.warning("no metrics are served on %s (%s): name another port", address, reason)
    else:
        logger.info("metrics on http://%s/metrics", address)
        return listener
    return None


def _rendered(registry: "CollectorRegistry", accept: str) -> tuple[str, bytes]:
    """Return the type and the text of what is measured, as OpenMetrics where that is asked for."""
    from prometheus_client.exposition import choose_encoder, generate_latest

    try:
        encode, kind = choose_encoder(accept)
        return kind, encode(registry)
    except (ValueError, TypeError, AttributeError, KeyError):  # a header of nonsense
        encode, kind = choose_encoder("")
        return kind, generate_latest(registry)
