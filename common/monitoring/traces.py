"""OpenTelemetry: spans whose times were measured elsewhere, sent without holding anything up.

Nothing of OpenTelemetry is imported before there is somewhere to send. A receiver that is away is
said once in the log, and costs the spans that do not find room to wait.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wardround.common.errors import install_command
from wardround.common.monitoring.addresses import FROM_ENVIRONMENT

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)
Attribute = str | int | float
_PATH = "/v1/traces"
_SECONDS = 5.0
_MOST_WAITING, _AT_ONCE = 4096, 512
_NANOSECONDS = 1_000_000_000
AWAY = "the receiver of traces does not take them: check that it runs, and its address"


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time, and what happened inside it.

    Attributes:
        begin: Seconds since 1970, as ``end``.
        attributes: Numbers and words of ours; nothing of a patient, no file's name.
    """

    name: str
    begin: float
    end: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    inside: tuple["Span", ...] = ()


class Traces:
    """Sends spans to one receiver, from a thread of its own."""

    def __init__(
        self, service: str, exporter: "SpanExporter", tell: Callable[[str], None] = logger.warning
    ) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._sending = BatchSpanProcessor(
            _telling_once(exporter, tell),
            max_queue_size=_MOST_WAITING,
            max_export_batch_size=_AT_ONCE,
            schedule_delay_millis=1000,
            export_timeout_millis=_SECONDS * 1000,
        )
        resource = Resource.create({"service.name": service})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._sending)
        self._tracer = self._provider.get_tracer("wardround")

    def write(self, spans: Sequence[Span]) -> None:
        """Have spans sent, each a trace with what is inside it."""
        for span in spans:
            self._write(span, None)

    def close(self) -> None:
        """Send what waits, for ten seconds at most."""
        ending = threading.Thread(target=self._sending.shutdown, daemon=True)
        ending.start()
        ending.join(2 * _SECONDS)

    def _write(self, span: Span, parent: object) -> None:
        from opentelemetry.trace import set_span_in_context

        made = self._tracer.start_span(
            span.name,
            context=parent,
            attributes=dict(span.attributes),
            start_time=int(span.begin * _NANOSECONDS),
        )
        for one in span.inside:
            self._write(one, set_span_in_context(made))
        made.end(end_time=int(max(span.begin, span.end) * _NANOSECONDS))


def open_traces(
    endpoint: str, service: str, tell: Callable[[str], None] = logger.warning
) -> Traces | None:
    """Return where spans go; None where nowhere is named, or a package is missing, which is told.

    Args:
        endpoint: The address of a receiver of OTLP over HTTP, "environment" for what the
            environment says, or "".
        tell: Is told a sentence, once, where spans are not taken.
    """
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it quotes addresses
        place = None if endpoint == FROM_ENVIRONMENT else f"{endpoint.rstrip('/')}{_PATH}"
        return Traces(service, OTLPSpanExporter(endpoint=place, timeout=_SECONDS), tell)
    except ImportError:
        tell(f"no traces are sent: run {install_command('monitor')}")
        return None


def _telling_once(exporter: "SpanExporter", tell: Callable[[str], None]) -> "SpanExporter":
    """Return an exporter that says once that its receiver is away, in words without its address."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Telling(SpanExporter):  # type: ignore[misc] # the package has no types
        has_told = False

        def export(self, spans: Sequence[object]) -> object:
            try:
                result = exporter.export(spans)
            except Exception:  # whatever a transport raises
                result = SpanExportResult.FAILURE
            if result is not SpanExportResult.SUCCESS and not self.has_told:
                self.has_told = True
                tell(AWAY)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Telling()
