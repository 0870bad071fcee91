"""Did a hospital gain? The federated and its own model, compared on each of its test patients.

Real sites send sums only, which cannot say whether two models erred on the same patients. A
simulation has the patients, so it can: it compares what both models said, as the run wrote it down.
"""

from collections.abc import Iterator, Sequence

from wardround.common.statistics.interval import Interval, t_quantile
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.outcome_metrics import outcome_gains
from wardround.simulations.evidence.intervals.paired_gains import mask_gains, score_gains
from wardround.simulations.evidence.intervals.run_intervals import Labels
from wardround.simulations.experiment.rows import KEPT
from wardround.simulations.run_files.folder import FEDERATED, PAIRED, MetricRow, local_model
from wardround.simulations.run_files.predictions import Predictions


def paired_rows(said: Predictions, study: Study, sites: Sequence[str]) -> Iterator[MetricRow]:
    """Yield the federated model's gain over each site's own on the same test patients.

    Nothing where the run left no predictions, and nothing of a
    site with one test patient, which says nothing of how patients differ.
    """
    for site, metric, gain in _gains(said, study, sites):
        if gain.patients > 1:
            yield paired_row(site, metric, gain)


def _gains(
    said: Predictions, study: Study, sites: Sequence[str]
) -> Iterator[tuple[str, str, Interval]]:
    labels = Labels(study.data.classes, study.data.multi_label)
    scores, masks = said.scores, said.masks
    for site in sites:
        both = (FEDERATED, site, "test"), (local_model(site), site, "test")
        if all(key in scores for key in both):
            found = score_gains(scores[both[0]], scores[both[1]], labels)
            yield from ((site, metric, gain) for metric, gain in found)
        if all(key in masks for key in both):
            marked = mask_gains(masks[both[0]], masks[both[1]])
            yield from ((site, metric, gain) for metric, gain in marked)
        if all(key in said.outcomes for key in both):
            one, other = (said.outcomes[key] for key in both)
            gained = outcome_gains(one, other)
            yield from ((site, metric, gain) for metric, gain in gained)


def paired_row(site: str, metric: str, gain: Interval) -> MetricRow:
    """Return the row of a site's gain over its own model."""
    # A reader of the row takes all patients for degrees of freedom: the interval is to be the same.
    spread = t_quantile(gain.freedom) / t_quantile(gain.patients - 1)
    error = gain.standard_error * spread
    name = local_model(site)
    return MetricRow(name, KEPT, site, PAIRED, metric, "", gain.value, gain.patients, 0.0, error)
