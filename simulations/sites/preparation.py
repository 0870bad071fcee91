"""From a data set to site folders inside a run folder."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wardround.client.site.folder import REVIEW_FOLDER, open_site
from wardround.common.files.tables import read_kept_table, write_table
from wardround.common.study.study import Study
from wardround.simulations.datasets.catalogue import load_dataset
from wardround.simulations.datasets.examinations import Examinations
from wardround.simulations.run_files.folder import SplitRow
from wardround.simulations.run_files.series import LEFT_OUT
from wardround.simulations.sites.assignment import (
    ASSIGNMENT,
    Assignment,
    as_in_parent,
    draw_splits,
    duplicated_images,
    images_elsewhere,
    load_assignment,
    missing_classes,
    save_assignment,
    split_table,
    too_small_steps,
    with_splits,
    without_site,
)
from wardround.simulations.sites.left import left_rows, read_left, write_left
from wardround.simulations.sites.site_folders import POOLED_SITE, write_pooled_site, write_sites
from wardround.simulations.sites.split import split_examinations


@dataclass(frozen=True, slots=True)
class PreparedSites:
    """Site folders, ready to train.

    Attributes:
        pooled: One folder with all sites' examinations, for the pooled comparison.
        notes: Sentences the report must show.
        facts: Name, licence and citation of the data set.
    """

    folders: tuple[Path, ...]
    pooled: Path
    table: tuple[SplitRow, ...] = ()
    notes: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


def prepare_sites(
    study: Study,
    out: Path,
    data_root: Path | None = None,
    assignment: Path | None = None,
    skip_unreadable: bool = False,
    left_out: str = "",
) -> PreparedSites:
    """Load the study's data set, split it, and write ``sites/``, ``split.csv``, ``assignment.csv``.

    Args:
        out: The run folder.
        assignment: A saved split to use instead of drawing one.
        left_out: A site that takes no part: its folder is written below ``left-out/``, and it is in
            no table. The other sites are what they are with it.

    Raises:
        InputError: The data is absent or broken, or cannot be split as asked.
    """
    simulation = study.simulation
    examinations = load_dataset(simulation.data, simulation.options, data_root, study)
    placed, examinations = _place(examinations, study, assignment)
    examinations = with_splits(examinations, placed)
    if simulation.parent is not None:
        write_left(out, left_rows(Path(simulation.parent)))
    duplicates = duplicated_images(examinations, study.data.dimensions)
    folders = write_sites(examinations, placed, study, out / "sites", skip_unreadable)
    read = take_readers_along(study, folders)
    pooled = write_pooled_site(
        examinations, placed, study, out / POOLED_SITE, skip_unreadable, left_out
    )
    if left_out:
        duplicates += images_elsewhere(examinations, placed, left_out, study.data.dimensions)
        folders = _set_aside(folders, left_out, out / LEFT_OUT)
        placed, examinations = without_site(placed, examinations, left_out)
    save_assignment(placed, examinations, out / ASSIGNMENT)
    table = split_table(_come_by_now(examinations, study), placed, study)
    write_table(out / "split.csv", table, SplitRow)
    notes = (
        *examinations.notes,
        *placed.notes,
        *read,
        *missing_classes(table),
        *too_small_steps(table, study),
        *duplicates,
    )
    facts = examinations.facts.as_text()
    return PreparedSites(folders, pooled, table, tuple(dict.fromkeys(notes)), facts)


def take_readers_along(study: Study, folders: Sequence[Path]) -> tuple[str, ...]:
    """Copy what readers said at the sites of the parent's run, and the cases that nobody labelled.

    A hospital has one site folder all the time; a simulated one has a folder in each run. What its
    readers corrected after the parent is trained on in the study that goes on from it.

    Returns:
        Sentences on whose corrections count.
    """
    parent = study.simulation.parent
    if parent is None:
        return ()
    notes = []
    for folder in folders:
        before = Path(parent) / "sites" / folder.name
        if not (before / REVIEW_FOLDER).is_dir():
            continue
        held, now = open_site(before), open_site(folder)
        shutil.copytree(before / REVIEW_FOLDER, folder / REVIEW_FOLDER, dirs_exist_ok=True)
        if held.unlabelled_path.exists():
            shutil.copyfile(held.unlabelled_path, now.unlabelled_path)
        notes.append(
            f"{folder.name} trains on what its readers corrected in the run {Path(parent).name}."
        )
    return tuple(notes)


def _come_by_now(examinations: Examinations, study: Study) -> Examinations:
    """Return a data set without the waves that are later than a study's."""
    if study.continual is None:
        return examinations
    came = [row for row in examinations.rows if row.wave <= study.continual.wave]
    return replace(examinations, rows=tuple(came))


def sites_of(
    study: Study, data_root: Path | None = None, assignment: Path | None = None
) -> tuple[str, ...]:
    """Return the sites that a study would have, without writing anything.

    Raises:
        InputError: The data is absent or broken, or cannot be split as asked.
    """
    simulation = study.simulation
    examinations = load_dataset(simulation.data, simulation.options, data_root, study)
    return _place(examinations, study, assignment)[0].sites


def _set_aside(folders: tuple[Path, ...], site: str, aside: Path) -> tuple[Path, ...]:
    """Move a site's folder to where no training looks, and return the others."""
    aside.mkdir(exist_ok=True)
    for folder in folders:
        if folder.name == site:
            folder.rename(aside / site)
    return tuple(folder for folder in folders if folder.name != site)


def reopen_sites(out: Path) -> PreparedSites:
    """Return the sites of a run folder that :func:`prepare_sites` wrote."""
    names = dict.fromkeys(row.site for row in read_kept_table(out / "split.csv", SplitRow))
    return PreparedSites(tuple(out / "sites" / name for name in names), out / POOLED_SITE)


def _place(
    examinations: Examinations, study: Study, assignment: Path | None
) -> tuple[Assignment, Examinations]:
    """Return who is where, and the examinations of those who are anywhere."""
    if assignment is not None:
        drawn = draw_splits(examinations, load_assignment(assignment, examinations), study)
        return drawn, examinations
    if study.simulation.parent is None:
        return split_examinations(examinations, study), examinations
    parent = Path(study.simulation.parent)
    left = read_left(parent)
    there = tuple(row for row in examinations.rows if row.patient not in left.patients)
    examinations = replace(examinations, rows=there)
    placed = as_in_parent(split_examinations(examinations, study), parent / ASSIGNMENT)
    for site in left.sites:
        placed, examinations = without_site(placed, examinations, site)
    return placed, examinations
