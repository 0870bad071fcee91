"""What a trial of a sweep is worth."""

import math
from pathlib import Path

from wardround.common.errors import DataError, RunError
from wardround.common.study.study import Study
from wardround.server.rounds.evaluation import overall
from wardround.simulations.experiment.training import history_of
from wardround.simulations.run_files.folder import FEDERATED


class Pruned(Exception):  # noqa: N818 # not an error: a trial that is worse than most is stopped
    """The trial is stopped early."""


def kept_value(folder: Path, study: Study, kept_round: int) -> float:
    """Return the study's metric of the kept model on all sites' validation patients.

    Args:
        folder: The trial's folder, with its history.

    Raises:
        DataError: No site has validation patients.
        RunError: The metric is not a number, e.g. because the training diverged.
    """
    records = history_of(folder, FEDERATED)
    if not any(record.measurements for record in records):
        msg = (
            "no site has validation patients, so trials cannot be scored: "
            "set evaluation.validation_fraction above 0, or mark some in the manifest's split."
        )
        raise DataError(msg)
    values = {r.measured_round: overall(r.measurements, study.metric) for r in records}
    value = values.get(kept_round, math.nan)
    if math.isnan(value):
        msg = f"{study.metric} of the kept model (round {kept_round}) is not a number."
        raise RunError(msg)
    return value
