"""What a site's ledger says, for people and for auditors: recomputed from its entries alone."""

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version

from wardround.client.privacy.ledger.budget import merged
from wardround.client.privacy.ledger.entries import Admitted, Entry
from wardround.client.privacy.ledger.totals import LedgerBook
from wardround.common.privacy.accounting import Spend, epsilon_of

UNIT = "patient"
ADJACENCY = "one patient added or removed"
_ALL = "all"  # parts
_INFINITE = "infinite"


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one run of a study has charged to a data set.

    Attributes:
        steps: T, those of every reservation.
        clip_norm: C, as the run was admitted.
        epsilon: Of this run alone, at the data set's delta.
        reservations: Charged, whether or not a reply left.
        snapshots: How many sets of patients it was trained on.
    """

    study: str
    run: str
    sampling_rate: float
    noise_multiplier: float
    steps: int
    clip_norm: float
    epsilon: float
    reservations: int
    released: int
    committed: int
    snapshots: int


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What is charged to one part of a data set.

    Attributes:
        part: Whose account it is: "train", "validation" or "test"; "all" where some patient has
            changed its part.
        epsilon: Of all runs together.
        delta: At which every epsilon is stated; the hospital's at the last admission.
        cap: The hospital's lifetime epsilon at the last admission.
    """

    dataset: str
    part: str
    epsilon: float
    delta: float
    cap: float
    remaining: float
    runs: tuple[RunReport, ...]


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What a ledger says.

    Attributes:
        counter: Number of entries.
        head: Hash of the last one.
        until: When it was written.
    """

    unit: str
    adjacency: str
    accountant: str
    counter: int
    head: str
    until: str
    datasets: tuple[DatasetReport, ...]


def report_ledger(entries: tuple[Entry, ...], mixed: bool = False) -> LedgerReport:
    """Return what verified entries amount to.

    Args:
        mixed: Whether some patient has changed its part, so that all parts are one account.

    Raises:
        LedgerError: An entry speaks of a reservation that is not there.
        InputError: dp-accounting is not installed.
    """
    book, last = LedgerBook(entries), entries[-1]
    accountant = f"PLD (dp-accounting {version('dp-accounting')})"
    datasets = tuple(
        _report_part(book, name, part)
        for name in book.datasets()
        for part in ([_ALL] if mixed or book.is_shared else book.parts(name))
    )
    return LedgerReport(UNIT, ADJACENCY, accountant, len(entries), last.hash, last.time, datasets)


def to_json(report: LedgerReport) -> str:
    """Return a report as JSON."""
    return json.dumps(_finite(asdict(report)), indent=2, allow_nan=False) + "\n"


def to_csv(report: LedgerReport) -> str:
    """Return a report as a table with a row a run, and a row "all" a part of a data set."""
    whole = ("unit", "adjacency", "accountant")
    of_set = ("dataset", "part", "delta", "cap", "remaining")
    of_run = tuple(field.name for field in fields(RunReport))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*whole, *of_set, *of_run))
    for dataset in report.datasets:
        begin = [getattr(report, name) for name in whole]
        begin += [getattr(dataset, name) for name in of_set]
        for run in dataset.runs:
            writer.writerow([*begin, *(getattr(run, name) for name in of_run)])
        total = {"study": "all", "run": "all", "epsilon": dataset.epsilon}
        writer.writerow([*begin, *(total.get(name, "") for name in of_run)])
    return text.getvalue()


def _report_part(book: LedgerBook, name: str, part: str) -> DatasetReport:
    admissions = [
        fact
        for fact in book.admissions.values()
        if fact.dataset == name and part in (_ALL, fact.part)
    ]
    delta, cap = admissions[-1].lifetime_delta, admissions[-1].lifetime_epsilon
    epsilon = epsilon_of(book.spends(name, part=None if part == _ALL else part), delta)
    runs = (run for fact in admissions for run in _report_run(book, fact, delta))
    return DatasetReport(name, part, epsilon, delta, cap, max(cap - epsilon, 0.0), tuple(runs))


def _report_run(book: LedgerBook, admitted: Admitted, delta: float) -> Iterator[RunReport]:
    """Report a run: one row, and another for each noise or sampling that it also had."""
    charged = book.charged(admitted.dataset, admitted.study, admitted.run, admitted.part)
    unspent = Spend(admitted.sampling_rate, admitted.noise_multiplier, 0)
    for spend in merged(item.charge.spend for item in charged) or (unspent,):
        equal = [item for item in charged if _alike(item.charge.spend, spend)]
        numbers = {item.number for item in equal}
        yield RunReport(
            study=admitted.study,
            run=admitted.run,
            sampling_rate=spend.sampling_rate,
            noise_multiplier=spend.noise_multiplier,
            steps=spend.steps,
            clip_norm=admitted.clip_norm,
            epsilon=epsilon_of([spend], delta),
            reservations=len(equal),
            released=len(numbers & book.released.keys()),
            committed=len(numbers & book.committed),
            snapshots=len({item.charge.assignment.snapshot for item in equal}),
        )


def _alike(a: Spend, b: Spend) -> bool:
    return (a.sampling_rate, a.noise_multiplier) == (b.sampling_rate, b.noise_multiplier)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return _INFINITE if isinstance(value, float) and math.isinf(value) else value
