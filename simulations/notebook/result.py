"""What a run came to, read from its folder: a sentence, tables, and models ready to use."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from pathlib import Path

from torch import nn

from wardround.common.files.tables import read_kept_table
from wardround.common.files.usable_path import usable_path
from wardround.server.checkpoints.history import RoundRecord
from wardround.simulations.experiment.training import history_of
from wardround.simulations.notebook.models import LoadedModel, load_model, model_names
from wardround.simulations.notebook.studies import Study, for_notebook, load_study
from wardround.simulations.notebook.tables import Table, as_table
from wardround.simulations.report.contents import read_contents
from wardround.simulations.report.verdict import SiteVerdict, Verdict
from wardround.simulations.report.wording import compose_headline, number
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    MetricRow,
    PrivacyRow,
    SplitRow,
    Status,
    TrafficRow,
)
from wardround.simulations.run_files.predictions import CASES, PREDICTIONS, CaseRow, ScoreRow

_SHOWN_SITES = 12


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One round of one model's training; round 0 is the model that it began with.

    Attributes:
        value: The study's metric of the model after this round, on all sites' validation patients;
            NaN if it was not measured.
        training_loss: Mean over the sites, weighted by their examinations; NaN of round 0.
        sites: How many contributed.
        left_out: How many were asked and did not.
        updates: Optimiser steps of all sites.
        seconds: How long the round took.
    """

    model: str
    round: int
    metric: str
    value: float
    training_loss: float
    sites: int
    left_out: int
    updates: int
    seconds: float


class Models(Mapping[str, nn.Module]):
    """The finished models of a run by name, each read when it is asked for.

    ``models["federated"]`` is a torch network in evaluation mode on the CPU;
    :func:`wardround.load_model` gives it with its study, on another device.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names

    def __getitem__(self, name: str) -> nn.Module:
        return load_model(self._folder, name=name).network

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Models) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((self._folder, self._names))

    def __repr__(self) -> str:
        return f"<models {', '.join(self._names) or 'none yet'}>"


@dataclass(frozen=True, slots=True, repr=False)
class SimulationResult:
    """What a run came to; everything in it can be read again from its folder.

    Attributes:
        folder: The run folder.
        study: What was run, with all changes made.
        status: ``finished``, or how far the run came.
        headline: The verdict in one sentence.
        verdict: For each site its own, the federated and the pooled model on its test patients;
            the gain with its error, and what that is called.
        rows: Every measured number, see :attr:`metrics`.
        models: The finished models by name, as torch networks ready to use.
        notes: What a reader of the numbers has to know.
    """

    folder: Path
    study: Study
    status: Status
    headline: str
    verdict: Verdict
    rows: tuple[MetricRow, ...] = field(repr=False)
    models: Models
    notes: tuple[str, ...]

    @property
    def report(self) -> Path:
        """The report, a page to open in a browser."""
        return self.folder / "report.html"

    @property
    def metrics(self) -> Table:
        """Every measured number: model, round (-1 is the kept model), site, split, metric, ...

        As all tables here a ``pandas.DataFrame`` where pandas is installed, else a list of
        dictionaries.
        """
        return as_table(self.rows, MetricRow)

    @property
    def history(self) -> Table:
        """A row a round of each model's training, see :class:`HistoryRow`."""
        return as_table(list(_history(self.folder, self.study.metric, self.rows)), HistoryRow)

    @property
    def split(self) -> Table:
        """Who holds what: examinations and patients of each class by site and split."""
        return as_table(read_kept_table(self.folder / "split.csv", SplitRow), SplitRow)

    @property
    def predictions(self) -> Table:
        """What each model said of each validation and test patient.

        Of a classification a score a class; of a segmentation Dice, volumes and lesions a class.
        """
        if self.study.task.dense:
            return as_table(read_kept_table(self.folder / CASES, CaseRow), CaseRow)
        return as_table(read_kept_table(self.folder / PREDICTIONS, ScoreRow), ScoreRow)

    @property
    def traffic(self) -> Table:
        """Bytes and seconds of each site in each round."""
        return as_table(read_kept_table(self.folder / "traffic.csv", TrafficRow), TrafficRow)

    @property
    def privacy(self) -> Table:
        """What each site's ledger was charged; no rows without privacy."""
        return as_table(read_kept_table(self.folder / "privacy.csv", PrivacyRow), PrivacyRow)

    def value(
        self, model: str = FEDERATED, site: str = ALL_SITES, metric: str | None = None
    ) -> float:
        """Return a kept model's value on test patients; NaN if it was not measured.

        Args:
            model: One of ``models``.
            site: Whose patients; all sites' together by default.
            metric: The study's own by default.
        """
        wanted = (model, site, metric or self.study.metric, "", -1, "test")
        for row in self.rows:
            if (row.model, row.site, row.metric, row.class_name, row.round, row.split) == wanted:
                return row.value
        return math.nan

    def model(self, name: str = FEDERATED, site: str | None = None) -> LoadedModel:
        """Return a finished model, ready to predict on the CPU.

        Args:
            name: One of ``models``.
            site: Whose, where the strategy gives each site one of its own.

        Raises:
            ModelError: There is no such model, or it is only the part that sites share.
        """
        return load_model(self.folder, self.study, name=name, site=site)

    def __repr__(self) -> str:
        return f"<SimulationResult {str(self.folder)!r}, {self.status}: {self.headline}>"

    def _repr_html_(self) -> str:
        metric = self.study.metric
        head = "".join(
            f"<th>{escape(title)}</th>"
            for title in ("hospital", "own data alone", "federated", "pooled data", "outcome")
        )
        sites = self.verdict.sites
        rows = "".join(_html_row(site, metric) for site in sites[:_SHOWN_SITES])
        more = len(sites) - _SHOWN_SITES
        further = f"<p>and {more} more hospitals</p>" if more > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return (
            f"<p><b>{escape(self.headline)}</b></p>{table if sites else ''}{further}"
            f"<p>{escape(metric)} on test patients; run {escape(self.status)}; report: "
            f"<code>{escape(str(self.report))}</code></p>"
        )


def open_run(folder: "str | PathLike[str]") -> SimulationResult:
    """Return what an earlier run came to.

    Args:
        folder: The run folder that :func:`simulate` or ``wardround simulate`` wrote.

    Raises:
        InputError: It holds no run, or one that this version cannot read.
    """
    path = usable_path(folder, "a run folder")
    contents = read_contents(path)
    verdict = contents.verdict_on(contents.metric)
    study = contents.study
    return SimulationResult(
        folder=path,
        study=load_study(path / "study.toml") if study is None else for_notebook(study),
        status=contents.facts.status,
        headline=compose_headline(contents, verdict).sentence,
        verdict=verdict,
        rows=contents.metrics,
        models=Models(path, model_names(path)),
        notes=contents.facts.notes,
    )


def _html_row(site: SiteVerdict, metric: str) -> str:
    values = (number(value, metric) for value in (site.own, site.federated, site.pooled))
    cells = (site.site, *values, site.outcome)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _history(folder: Path, metric: str, rows: tuple[MetricRow, ...]) -> Iterator[HistoryRow]:
    measured = {
        (row.model, row.round): row.value
        for row in rows
        if (row.site, row.split, row.metric, row.class_name)
        == (ALL_SITES, "validation", metric, "")
    }
    checkpoints = folder / "checkpoints"
    names = sorted({path.name for path in checkpoints.glob("*")} | {name for name, _ in measured})
    for name in sorted(names, key=lambda name: (name != FEDERATED, name)):
        trained = {one.round: one for one in history_of(folder, name) if one.sites or one.refusals}
        numbers = {number for model, number in measured if model == name and number >= 0}
        for at in sorted(numbers | trained.keys()):
            value = measured.get((name, at), math.nan)
            yield _history_row(name, at, (metric, value), trained.get(at))


def _history_row(
    model: str, number: int, measured: tuple[str, float], record: RoundRecord | None
) -> HistoryRow:
    metric, value = measured
    if record is None:
        return HistoryRow(model, number, metric, value, math.nan, 0, 0, 0, 0.0)
    weight = sum(site.examinations for site in record.sites)
    loss = sum(site.examinations * site.training_loss for site in record.sites)
    return HistoryRow(
        model,
        number,
        metric,
        value,
        loss / weight if weight else math.nan,
        len(record.sites),
        len(record.refusals),
        sum(site.updates for site in record.sites),
        record.seconds,
    )
