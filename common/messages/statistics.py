"""The statistics of a site, from which a study is planned: the question, the answer, its checks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from wardround.common.errors import RunError
from wardround.common.flower.messages.content import arrays_of, configs_of, metrics_of
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.schema import ArraySpec, Schema
from wardround.common.runtime.fields import FieldError, Fields
from wardround.common.study.plans.statistics import (
    MOMENTS,
    asked_histograms,
    moment_side,
    plan_statistics,
)
from wardround.common.study.study import Study

STATISTICS = "query.statistics"
HISTOGRAMS, FACTS, PATIENTS = "histograms", "facts", "patients"
_MOST_PATIENTS = 10**9
_ROUNDING = 1e-6

Cells = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SiteStatistics:
    """A site's answer.

    Attributes:
        patients: Training patients, rounded down; 0 where the cells have noise and nothing is said.
        cells: By the name of a histogram ``(cells,)``. Of one that is whole: patients. Of another:
            shares of the patients' mean histogram. With noise: patients times ``patient_scale``.
            Where ComBat is asked for: its square of sums alone.
    """

    site: str
    digest: str
    patients: int
    cells: Mapping[str, Cells]


def question_content(study: Study) -> RecordDict:
    """Return the content of the message that asks for statistics: only which study is meant."""
    return RecordDict({"instruction": ConfigRecord({"digest": study.digest})})


def asked_digest(content: RecordDict) -> str:
    """Return which study a question is about.

    Raises:
        RunError: It does not say so.
    """
    try:
        return Fields(configs_of(content).get("instruction"), "instruction").text("digest")
    except FieldError as error:
        msg = f"the server's question cannot be read ({error}): update wardround."
        raise RunError(msg) from None


def pack_statistics(said: SiteStatistics) -> RecordDict:
    """Return the content of the message that carries a site's statistics."""
    import torch

    content = RecordDict(
        {
            "header": ConfigRecord({"site": said.site, "digest": said.digest}),
            HISTOGRAMS: to_array_record(
                {name: torch.from_numpy(cells.copy()) for name, cells in said.cells.items()}
            ),
        }
    )
    if said.patients:
        content[FACTS] = MetricRecord({PATIENTS: said.patients})
    return content


def unpack_statistics(content: RecordDict, study: Study) -> SiteStatistics:
    """Return the statistics in a message.

    Raises:
        RunError: The message is not one, or holds what no patients can give.
        WardroundError: An array cannot be read.
    """
    try:
        header = Fields(configs_of(content).get("header"), "header")
        site, digest = header.text("site", least=1), header.text("digest")
        record = arrays_of(content).get(HISTOGRAMS)
        if record is None:
            msg = f"{HISTOGRAMS} is missing"
            raise FieldError(msg)
        facts = metrics_of(content).get(FACTS)  # absent where there are too few patients
        patients = 0 if facts is None else Fields(facts, FACTS).whole(PATIENTS, most=_MOST_PATIENTS)
    except FieldError as error:
        msg = (
            f"the statistics cannot be read ({error}): server and site must run the same version "
            "of wardround."
        )
        raise RunError(msg) from None
    found = {name: tensor.numpy() for name, tensor in from_array_record(record).items()}
    said = SiteStatistics(site, digest, patients, found)
    check_statistics(said, study)
    return said


def check_statistics(said: SiteStatistics, study: Study) -> None:
    """Check that statistics have the study's cells, and hold what patients can give.

    Raises:
        RunError: They do not.
    """
    if study.statistics.combat:
        _check_moments(said, study)
        return
    asked, private = asked_histograms(study), plan_statistics(study) is not None
    if said.digest != study.digest or set(said.cells) != {one.name for one in asked}:
        msg = f"the statistics of {said.site} are not those of this study: ask the site again."
        raise RunError(msg)
    for one in asked:
        cells = said.cells[one.name]
        most = float(said.patients) if one.is_whole else 1.0
        fits = cells.shape == (one.cells,) and cells.dtype == np.float64
        if not fits or not np.isfinite(cells).all():
            msg = f"the histogram {one.name} of {said.site} has not {one.cells} finite cells."
            raise RunError(msg)
        if not private and (cells.min() < 0 or cells.sum() > most + _ROUNDING * max(most, 1)):
            msg = f"the histogram {one.name} of {said.site} is that of no {said.patients} patients."
            raise RunError(msg)


def _check_moments(said: SiteStatistics, study: Study) -> None:
    if said.digest != study.digest or set(said.cells) != {MOMENTS}:
        msg = f"the sums of {said.site} are not those of this study: ask the site again."
        raise RunError(msg)
    side, sums = moment_side(study), said.cells[MOMENTS]
    fits = sums.shape == (side, side) and sums.dtype == np.float64
    if not fits or not np.isfinite(sums).all():
        msg = f"the sums of {said.site} are not {side} x {side} finite numbers."
        raise RunError(msg)
    count = float(said.patients)
    possible = (
        count > 0
        and sums[0, 0] == count
        and np.abs(sums).max() <= count * (1 + _ROUNDING)
        and np.allclose(sums, sums.T, rtol=0, atol=_ROUNDING)
        and np.linalg.eigvalsh(sums).min() >= -_ROUNDING * count
    )
    if not possible:
        msg = f"the sums of {said.site} are those of no {said.patients} patients."
        raise RunError(msg)


def statistics_schema(study: Study) -> Schema:
    """Return the arrays of an answer."""
    if study.statistics.combat:
        side = moment_side(study)
        return (ArraySpec(MOMENTS, (side, side), "float64"),)
    return tuple(ArraySpec(one.name, (one.cells,), "float64") for one in asked_histograms(study))
