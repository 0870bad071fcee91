"""Two series, each hospital left out in turn: images made alike, and images as they are.

======================= ==================================================================
``harmonised/``         the series of the study as it is
``as-they-are/``        the same hospitals, splits and seeds without ``data.harmonisation``
``unseen.csv``          :class:`UnseenRow`: each hospital that took no part, both ways
======================= ==================================================================
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.files.tables import read_kept_table, write_table
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.registry import METRICS
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.series.series import (
    SeriesRequest,
    resume_series,
    run_series,
)
from wardround.simulations.run_files.events import Watch, nobody
from wardround.simulations.run_files.folder import new_folder
from wardround.simulations.run_files.series import (
    HARMONISED,
    LEFT_OUT_EVERYBODY,
    MEASURED,
    MeasuredRow,
    is_series,
    read_series,
)

AS_THEY_ARE, UNSEEN = "as-they-are", "unseen.csv"


@dataclass(frozen=True, slots=True)
class UnseenRow:
    """One hospital that took no part, with one seed: the metric on all its patients.

    Attributes:
        gain: How much better it is harmonised; of a metric that is to be low, how much lower.
    """

    seed: int
    site: str
    metric: str
    as_they_are: float
    harmonised: float
    gain: float


def is_pair(folder: Path) -> bool:
    """Return whether a folder holds two such series, or began to."""
    return is_series(folder / HARMONISED)


def run_pair(request: SeriesRequest, watch: Watch = nobody) -> tuple[UnseenRow, ...]:
    """Run the study's series, then that without harmonisation, and table the unseen hospitals.

    Raises:
        InputError: The study harmonises nothing, or leaves no hospital out; or as ``run_series``.
        RunError: A run could not go on; both can be resumed.
    """
    if not request.leave_one_site_out:
        msg = "--also-unharmonised tests hospitals that took no part: add --leave-one-site-out."
        raise InputError(msg)
    if not request.study.data.harmonisation.is_asked:
        msg = (
            "--also-unharmonised compares with data.harmonisation, which the study leaves out: "
            "make it with 'wardround data landmarks STUDY --out FILE', or set "
            "data.harmonisation.bias_correction = true."
        )
        raise InputError(msg)
    out = request.out
    new_folder(out, f"choose another --out, or go on with --resume {out}")
    try:
        run_series(replace(request, out=out / HARMONISED), watch)
    finally:
        if not is_pair(out):  # it was refused: nothing is left behind
            with suppress(OSError):
                out.rmdir()
    return _without(out, request.machine, watch)


def resume_pair(out: Path, machine: Machine, watch: Watch = nobody) -> tuple[UnseenRow, ...]:
    """Go on with two series that were stopped.

    Raises:
        InputError: The folder holds none, or a study was changed.
    """
    resume_series(out / HARMONISED, machine, watch)
    return _without(out, machine, watch)


def _without(out: Path, machine: Machine, watch: Watch) -> tuple[UnseenRow, ...]:
    plain = out / AS_THEY_ARE
    if is_series(plain):
        resume_series(plain, machine, watch)
    else:
        facts, study = read_series(out / HARMONISED), load_study(out / HARMONISED / "study.toml")
        request = SeriesRequest(
            study=with_changes(study, {"data.harmonisation": {}}),
            out=plain,
            leave_one_site_out=True,
            seeds=facts.seeds if facts.several_seeds else (),
            machine=machine,
            data_root=None if facts.data_root is None else Path(facts.data_root),
            assignment=None if facts.assignment is None else Path(facts.assignment),
            skip_unreadable=facts.skip_unreadable,
            command=facts.command,
        )
        run_series(request, watch)
    rows = unseen_rows(out)
    write_table(out / UNSEEN, rows, UnseenRow)
    return rows


def unseen_rows(out: Path) -> tuple[UnseenRow, ...]:
    """Return both series' numbers at each hospital that took no part, side by side."""
    plain = {(r.seed, r.site, r.metric): r.value for r in _left_out(out / AS_THEY_ARE)}
    found = []
    for row in _left_out(out / HARMONISED):
        before = plain.get((row.seed, row.site, row.metric))
        entry = METRICS.get(row.metric)
        if before is None or entry is None:
            continue
        gain = row.value - before if entry.higher_is_better else before - row.value
        found.append(UnseenRow(row.seed, row.site, row.metric, before, row.value, gain))
    return tuple(found)


def _left_out(series: Path) -> tuple[MeasuredRow, ...]:
    rows = read_kept_table(series / MEASURED, MeasuredRow)
    return tuple(row for row in rows if row.model == LEFT_OUT_EVERYBODY)
