"""A series: one study simulated several times, with other seeds or without one hospital each.

======================= ==================================================================
``study.toml``          the study
``series.json``         :class:`SeriesFacts`: what was asked for
``runs/NAME/``          a run folder each: ``together``, ``without-SITE``; of several seeds
                        ``seed-0``, ``seed-0-without-SITE``
``runs/NAME/left-out/`` the hospital that took no part: its site folder, which no training sees,
                        and what the run's model says of its patients
``measured.csv``        :class:`MeasuredRow`: every model at every hospital, with every seed
``report.html``         the report
======================= ==================================================================
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.runtime.fields import of_its_types

SERIES = "series.json"
MEASURED = "measured.csv"
LEFT_OUT = "left-out"  # the model, and the folder in a run
LEFT_OUT_EVERYBODY = "left-out, all patients"
TAKING_PART = "gain of taking part"  # federated over left out, on the same test patients
OWN = "alone"
CALIBRATION = "ece"
HARMONISED = "harmonised"  # the folder of a series beside that of images as they are


@dataclass(frozen=True, slots=True)
class Part:
    """One run of a series.

    Attributes:
        name: Of its folder.
        left_out: The hospital that takes no part; "" where all do.
    """

    name: str
    seed: int
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What was asked for.

    Attributes:
        seeds: Of the runs; one, the study's own, where none were given.
        several_seeds: Whether they were given.
        assignment: A saved split to use instead of drawing one.
        started: And ``finished``, None until then.
    """

    wardround: str
    command: tuple[str, ...]
    digest: str
    leave_one_site_out: bool
    seeds: tuple[int, ...]
    several_seeds: bool
    started: str
    finished: str | None = None
    data_root: str | None = None
    assignment: str | None = None
    skip_unreadable: bool = False
    notes: tuple[str, ...] = field(default=())

    def together(self) -> tuple[Part, ...]:
        """Return the runs in which every hospital takes part."""
        return tuple(Part(self._prefix(seed) or "together", seed) for seed in self.seeds)

    def without_each(self, sites: tuple[str, ...], seed: int) -> tuple[Part, ...]:
        """Return the runs of a seed in which one hospital takes no part."""
        prefix = self._prefix(seed)
        start = f"{prefix}-without-" if prefix else "without-"
        return tuple(Part(f"{start}{site}", seed, site) for site in sites)

    def _prefix(self, seed: int) -> str:
        return f"seed-{seed}" if self.several_seeds else ""


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One model at one hospital with one seed.

    Attributes:
        model: ``alone``, ``federated``, ``pooled``, ``left-out`` (the federation without this
            hospital), ``left-out, all patients`` (the same on all patients of the hospital, of whom
            none was trained on), or ``gain of taking part``: federated over left out.
        metric: A key of METRICS, or ``ece``.
        value: NaN where it is not defined.
        low, high: Of the 95 % interval over patients; NaN where there is none.
        error: Standard error over patients; NaN likewise.
    """

    seed: int
    site: str
    model: str
    metric: str
    value: float
    low: float
    high: float
    error: float
    patients: int
    examinations: int


def is_series(folder: Path) -> bool:
    """Return whether a folder holds a series."""
    return (folder / SERIES).is_file()


def holds_series(folder: Path) -> bool:
    """Return whether a folder holds a series, or one beside that of unharmonised images."""
    return is_series(folder) or is_series(folder / HARMONISED)


def write_series(folder: Path, facts: SeriesFacts) -> None:
    """Write ``series.json``, replacing it at once."""
    text = json.dumps(asdict(facts), indent=2) + "\n"
    replace_file(folder / SERIES, text, BY_UMASK, durable=False)


def read_series(folder: Path) -> SeriesFacts:
    """Read ``series.json``.

    Raises:
        InputError: The folder holds no series, or one that this version cannot read.
    """
    try:
        content = json.loads((folder / SERIES).read_text(encoding="utf-8"))
        lists = {name: tuple(content[name]) for name in ("command", "seeds", "notes")}
        return of_its_types(SeriesFacts(**(content | lists)))
    except OSError:
        msg = f"{folder} holds no series of runs: give the folder that --out named."
        raise InputError(msg) from None
    except (ValueError, KeyError, TypeError) as error:
        msg = (
            f"{folder / SERIES} cannot be read ({type(error).__name__}): it was changed, or "
            "another version of wardround wrote it. Start a new run."
        )
        raise InputError(msg) from None
