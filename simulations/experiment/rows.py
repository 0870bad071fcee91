"""From the server's history and measurements to the rows of a run folder."""

from collections.abc import Iterable, Iterator, Sequence

from wardround.server.checkpoints.history import TRAINING, Measurement, RefusalRecord, RoundRecord
from wardround.simulations.run_files.folder import POOLED, MetricRow, TrafficRow

KEPT = -1


def metric_rows(
    model: str, number: int, measurements: Iterable[Measurement]
) -> Iterator[MetricRow]:
    """Yield a row a measured value."""
    for measurement in measurements:
        for value in measurement.values:
            yield MetricRow(
                model=model,
                round=number,
                site=measurement.site,
                split=measurement.split,
                metric=value.metric,
                class_name=value.class_name,
                value=value.value,
                support=value.support,
                error_bound=value.error_bound,
                standard_error=value.standard_error,
            )


def history_rows(model: str, records: Sequence[RoundRecord]) -> Iterator[MetricRow]:
    """Yield the validation values of every round."""
    for record in records:
        # The pooled site is no hospital: only its merged values are rows.
        parts = [m for m in record.measurements if m.site != POOLED]
        yield from metric_rows(model, record.measured_round, parts)


def traffic_rows(model: str, records: Sequence[RoundRecord]) -> Iterator[TrafficRow]:
    """Yield what each site sent, received and took in every round."""
    for record in records:
        for site in record.sites:
            yield TrafficRow(
                model=model,
                round=record.round,
                site=site.site,
                bytes_down=site.bytes_down,
                bytes_up=site.bytes_up,
                seconds=site.seconds,
                updates=site.updates,
            )


def refusal_notes(refusals: Iterable[RefusalRecord]) -> tuple[str, ...]:
    """Return a sentence for every site that did not evaluate what it was asked to, and why."""
    missing = {(r.site, r.asked, r.reason.rstrip(".")) for r in refusals if r.asked != TRAINING}
    return tuple(
        f"{site} did not always evaluate on its {split} patients ({reason}): "
        "those measurements are without it."
        for site, split, reason in sorted(missing)
    )
