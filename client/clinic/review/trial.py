"""Did the chosen cases train a better model than those drawn by lot? Asked by training on each.

Both arms train the study's network at this site alone, from the same start and for the same
rounds: on what the manifest says, and on what readers said of one arm's cases. They are measured on
the site's validation patients, whom no reader was shown. Nothing of it leaves the site.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w

from wardround.client.clinic.local_training import train_locally
from wardround.client.clinic.review.outcome import Comparison, compare_repeats
from wardround.client.clinic.review.queue import CHOSEN, DRAWN
from wardround.client.clinic.review.taking import Desk
from wardround.client.data.manifest.corrections import case_ids, corrected
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.manifest.table import read_table
from wardround.client.policy.policy import POLICY_FILE
from wardround.client.site.folder import REVIEW_FOLDER, SITE_FILE, open_site
from wardround.common.errors import InputError
from wardround.common.files.atomic import make_private_folder
from wardround.common.metrics.task_sums import MetricValue
from wardround.common.study.loading import with_changes
from wardround.common.study.variants import without_privacy

_POLICY = 'approved = "any"\nsimulated = true\nprivacy_required = false\n'
FEWEST = 2  # seeds: one has no interval


@dataclass(frozen=True, slots=True)
class Trial:
    """What two arms came to.

    Attributes:
        metric: Of the study.
        chosen: One value a seed; likewise ``drawn``.
        cases: How many of each arm were read.
    """

    metric: str
    chosen: tuple[float, ...]
    drawn: tuple[float, ...]
    cases: tuple[int, int]

    @property
    def comparison(self) -> Comparison:
        """The difference, with its interval over seeds."""
        return compare_repeats(self.chosen, self.drawn, self.metric)


def compare_training(desk: Desk, seeds: int, rounds: int | None = None) -> Trial:
    """Train on each arm's corrections and measure both.

    Args:
        desk: A queue whose arms were both read.
        seeds: Of the initial weights and the order of batches; at least 2.
        rounds: None takes the study's.

    Raises:
        InputError: An arm was not read, or there are too few seeds.
    """
    if seeds < FEWEST:
        msg = f"--train {seeds}: an interval needs at least {FEWEST} trainings of each arm."
        raise InputError(msg)
    read = {one.case for one in desk.listed.corrections.lines}
    arms = {name: {one.case for one in desk.queue.arm(name)} & read for name in (CHOSEN, DRAWN)}
    empty = [name for name, cases in arms.items() if not cases]
    if empty:
        msg = f"no case of the arm {' and '.join(empty)} was read: there is nothing to compare."
        raise InputError(msg)
    values = {name: _train_arm(desk, cases, seeds, rounds) for name, cases in arms.items()}
    return Trial(
        desk.study.metric,
        tuple(values[CHOSEN]),
        tuple(values[DRAWN]),
        (len(arms[CHOSEN]), len(arms[DRAWN])),
    )


def _train_arm(desk: Desk, cases: set[str], seeds: int, rounds: int | None) -> list[float]:
    folder = desk.site.folder / REVIEW_FOLDER
    make_private_folder(folder)
    with TemporaryDirectory(dir=folder) as place:
        _write_site(desk, cases, Path(place))
        site = open_site(place)
        found = []
        for seed in range(seeds):
            study = with_changes(
                without_privacy(desk.study), {"federation.seed": desk.study.federation.seed + seed}
            )
            trained = train_locally(study, site, rounds=rounds)
            found.append(_value(trained.values, desk.study.metric))
        return found


def _value(values: Sequence[MetricValue], metric: str) -> float:
    for one in values:
        if one.metric == metric and not one.class_name:
            return one.value
    msg = f"the site has no validation patients on whom {metric} could be measured."
    raise InputError(msg)


def _write_site(desk: Desk, cases: set[str], folder: Path) -> None:
    """Write a site folder whose manifest has the corrections of these cases alone."""
    site = desk.site
    said = site.settings.model_dump(mode="json", exclude_none=True, exclude={"server", "ledger"})
    said |= {"manifest": "manifest.csv", "data_root": str(site.data_root)}
    (folder / SITE_FILE).write_text(tomli_w.dumps(said), encoding="utf-8")
    (folder / POLICY_FILE).write_text(_POLICY, encoding="utf-8")
    table = read_table(site.manifest_path)
    words = label_words(site, desk.study)
    table, _ = corrected(table, site, desk.study, words, cases)
    part_of = {one.id: one.part for one in desk.listed.cases}
    ids = case_ids(table, desk.listed.key)
    place = table.place("split")
    header = list(table.header) if place is not None else [*table.header, "split"]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(header)
        for line, case in zip(table.lines, ids, strict=True):
            if case not in part_of:
                continue
            cells = list(line.cells[: len(table.header)])
            cells[place if place is not None else len(cells) :] = [part_of[case]] + (
                cells[place + 1 :] if place is not None else []
            )
            rows.writerow(cells)
