"""Which patient is in which site and part: the outcome of a split, saved and read back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wardround.client.data.manifest.cells import parse_location, parse_split
from wardround.client.data.manifest.examination import SPLITS, Location
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.manifest.parts.allocation import draw_parts, shares_of, stratify
from wardround.client.data.manifest.parts.partition import simulated_key
from wardround.client.data.manifest.parts.written_parts import WrittenParts
from wardround.client.data.manifest.table import Line, Table, read_table
from wardround.client.data.same_images import Held, find_same_images, require_parted
from wardround.client.tasks.task import Label, UnusableLabelError
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError, InputError
from wardround.common.files.tables import write_cells
from wardround.common.runtime.printable import printable
from wardround.common.runtime.system.names import fits_everywhere, same_somewhere
from wardround.common.study.plans.patient_privacy import drawn_and_expected
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import Examinations, PublicExamination
from wardround.simulations.run_files.folder import SplitRow

SPLIT_NAMES: tuple[str, ...] = SPLITS
ASSIGNMENT = "assignment.csv"  # of a run folder


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """A patient's row in a run folder's :data:`ASSIGNMENT`."""

    patient: str
    site: str
    split: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """Patients to sites.

    Attributes:
        sites: Every site's name, in order.
        site_of: Patient to site.
        notes: Sentences the report must show.
        split_of: Patient to train, validation or test, where the data set does not say.
    """

    sites: tuple[str, ...]
    site_of: Mapping[str, str]
    notes: tuple[str, ...] = ()
    split_of: Mapping[str, str] = field(default_factory=dict)

    def rows_of(self, site: str, examinations: Examinations) -> tuple[PublicExamination, ...]:
        """Return the examinations of one site, in the data set's order."""
        return tuple(row for row in examinations.rows if self.site_of[row.patient] == site)


def with_splits(examinations: Examinations, assignment: Assignment) -> Examinations:
    """Return the examinations with the split of each patient."""
    split_of = assignment.split_of
    rows = [
        row if row.split else replace(row, split=split_of.get(row.patient, ""))
        for row in examinations.rows
    ]
    return replace(examinations, rows=tuple(rows))


def without_site(
    assignment: Assignment, examinations: Examinations, site: str
) -> tuple[Assignment, Examinations]:
    """Return a split and its data set without one site's patients."""
    kept = {patient: name for patient, name in assignment.site_of.items() if name != site}
    rows = tuple(row for row in examinations.rows if row.patient in kept)
    sites = tuple(name for name in assignment.sites if name != site)
    split_of = {p: split for p, split in assignment.split_of.items() if p in kept}
    placed = replace(assignment, sites=sites, site_of=kept, split_of=split_of)
    return placed, replace(examinations, rows=rows)


def draw_splits(examinations: Examinations, assignment: Assignment, study: Study) -> Assignment:
    """Let each site draw who is tested on, as a hospital does when it first sees its patients.

    Where the data set says it, or the assignment does, there is nothing to draw.
    """
    rows = examinations.rows
    if any(row.split for row in rows) or assignment.split_of.keys() >= {r.patient for r in rows}:
        return assignment
    split_of: dict[str, str] = {}
    for site in assignment.sites:
        own = assignment.rows_of(site, examinations)
        names = WrittenParts(simulated_key(study, site))
        patient_of = {names.hash_of(row.patient): row.patient for row in own}
        labelled = [(names.hash_of(row.patient), _label(row, study)) for row in own]
        parts = draw_parts(stratify(labelled, study), shares_of(study), names.key, SPLITS)
        split_of |= {patient_of[hash_]: part for hash_, part in parts.items()}
    return replace(assignment, split_of=split_of)


def _label(row: PublicExamination, study: Study) -> Label | None:
    """Return what a site will read as the label; it refuses one that cannot be used, not this."""
    try:
        return label_words(None, study).read(row.label, study)
    except UnusableLabelError:
        return None


def needed_splits(study: Study) -> tuple[str, ...]:
    """Return the splits that a site refuses to be without."""
    fractions = (1.0, study.evaluation.validation_fraction, study.evaluation.test_fraction)
    return tuple(name for name, share in zip(SPLIT_NAMES, fractions, strict=True) if share)


def save_assignment(assignment: Assignment, examinations: Examinations, path: Path) -> None:
    """Write ``patient,site,split`` rows, site by site, replacing the file at once."""
    order = {site: place for place, site in enumerate(assignment.sites)}
    found = {row.patient: row.split for row in with_splits(examinations, assignment).rows}
    split_of = {**assignment.split_of, **found}
    rows = sorted(
        (
            (patient, site, split_of.get(patient, ""))
            for patient, site in assignment.site_of.items()
        ),
        key=lambda row: (order[row[1]], row[0]),
    )
    write_cells(path, ("patient", "site", "split"), rows)


def as_in_parent(assignment: Assignment, path: Path) -> Assignment:
    """Return an assignment in which whoever was in the parent's run is where he was there.

    Args:
        path: What :func:`save_assignment` wrote in the parent's run folder.

    Raises:
        InputError: It is missing or damaged, or a patient was at a site that is gone.
    """
    try:
        table = read_table(path, "the parent's assignment")
        lines = [_placed(table, line) for line in table.lines]
    except (DataError, TypeError):
        msg = (
            f"{path} is missing or damaged, and says where the parent's patients are: give "
            "simulation.parent the parent's run folder, or remove it."
        )
        raise InputError(msg) from None
    known = [line for line in lines if line[0] in assignment.site_of]
    if gone := sorted({site for _, site, _ in known} - {*assignment.sites}):
        msg = (
            f"the parent's run has patients at {', '.join(gone)}, which this study's simulation "
            "does not have: leave its split, sites and data as they are in the parent."
        )
        raise InputError(msg)
    site_of = {**assignment.site_of, **{patient: site for patient, site, _ in known}}
    split_of = {patient: split for patient, _, split in known if split}
    return replace(assignment, site_of=site_of, split_of={**assignment.split_of, **split_of})


def load_assignment(path: Path, examinations: Examinations) -> Assignment:
    """Read what :func:`save_assignment` wrote, for the same data set.

    The column split may be missing or empty: then the sites draw it.

    Raises:
        InputError: The file is missing or is no assignment, names a patient twice, leaves a
            patient of the data set without a site, holds no split or one that is none, or has a
            site whose name no folder may have.
    """
    try:
        table = read_table(path, "the assignment")
    except DataError as error:
        wanted = "give a CSV file with the columns patient and site."
        msg = str(error) if path.is_file() else f"there is no assignment {path}: {wanted}"
        raise InputError(msg) from None
    if table.place("patient") is None or table.place("site") is None:
        msg = f"{path} is not an assignment: give a CSV file with the columns patient and site."
        raise InputError(msg)
    lines = [_placed(table, line) for line in table.lines]
    site_of = {patient: site for patient, site, _ in lines}
    if len(site_of) != len(lines):
        twice = len(lines) - len(site_of)
        msg = f"{path} names {twice} patients more than once: give each patient one site."
        raise InputError(msg)
    patients = {row.patient for row in examinations.rows}
    homeless = patients - site_of.keys()
    if homeless or not all(site_of.values()):
        msg = (
            f"{path} has no site for {len(homeless)} of the data set's patients, or an empty cell: "
            "it belongs to other data or options. Split again."
        )
        raise InputError(msg)
    _check_names(path, tuple(dict.fromkeys(site_of.values())))
    split_of = {patient: split for patient, _, split in lines if split}
    if split_of and (patients - split_of.keys() or not set(split_of.values()) <= set(SPLITS)):
        msg = (
            f"{path} has cells in the column split that are empty or no split: write train, "
            "validation or test in each, or leave the column out."
        )
        raise InputError(msg)
    return Assignment(tuple(dict.fromkeys(site_of.values())), site_of, (), split_of)


def _check_names(path: Path, sites: Sequence[str]) -> None:
    """Refuse sites whose folders some system could not have, or would take for one.

    Raises:
        InputError: There are such.
    """
    for site in sites:
        if not fits_everywhere(site):
            msg = (
                f"{path} has a site {printable(site)!r}, which is no name for a folder on every "
                'system: leave out < > : " / \\ | ? *, a dot at the end, and names as CON or NUL.'
            )
            raise InputError(msg)
    if (same := same_somewhere(sites)) is not None:
        msg = (
            f"{path} has the sites {printable(same[0])!r} and {printable(same[1])!r}, which are "
            "one folder where capitals do not count: write each hospital's name in one way."
        )
        raise InputError(msg)


def _placed(table: Table, line: Line) -> tuple[str, str, str]:
    """Return the patient, the site and the split of a row."""
    places = (table.place(name) for name in ("patient", "site", "split"))
    patient, site, split = (tidy(line.cells[n]) if n is not None else "" for n in places)
    try:
        return patient, site, parse_split(split) or ""
    except ValueError:  # refused with all others
        return patient, site, split


def split_table(
    examinations: Examinations, assignment: Assignment, study: Study
) -> tuple[SplitRow, ...]:
    """Return who holds what: a row a site, split and class, with "" for all classes together."""
    counted: Counter[tuple[str, str, str]] = Counter()
    patients: dict[tuple[str, str, str], set[str]] = {}
    for row in with_splits(examinations, assignment).rows:
        site, split = assignment.site_of[row.patient], row.split
        for name in ("", *row.label.split(";")) if row.label else ("",):
            counted[site, split, name] += 1
            patients.setdefault((site, split, name), set()).add(row.patient)
    return tuple(
        SplitRow(site, split, name, counted[site, split, name], len(patients.get(key, ())))
        for site in assignment.sites
        for split in SPLIT_NAMES
        for name in ("", *_classes(study))
        for key in [(site, split, name)]
    )


def missing_classes(table: Sequence[SplitRow]) -> tuple[str, ...]:
    """Return a sentence for every site that trains without a class."""
    absent: dict[str, list[str]] = {}
    for row in table:
        if row.split == "train" and row.class_name and not row.patients:
            absent.setdefault(row.site, []).append(row.class_name)
    return tuple(
        f"{site} has no training patient of {', '.join(names)}." for site, names in absent.items()
    )


def too_small_steps(table: Sequence[SplitRow], study: Study) -> tuple[str, ...]:
    """Return a sentence for every site whose private steps are divided by far too many patients."""
    notes = []
    for row in table:
        far = drawn_and_expected(study, row.patients)
        if row.split == "train" and not row.class_name and far is not None:
            drawn, expected = far
            notes.append(
                f"A private step of {row.site} draws {drawn:.1f} of its {row.patients} training "
                f"patients on average, and divides their sum by {expected}: its steps are "
                f"{expected / drawn:.1f} times too small. Set privacy.expected_patients "
                "(the batch size where it is absent) or raise privacy.sampling_rate."
            )
    return tuple(notes)


def duplicated_images(examinations: Examinations, dimensions: int = 2) -> tuple[str, ...]:
    """Return sentences on images that are the same under two names.

    Of a public data set the bytes of files are compared, of a user's own the pixels too.

    Args:
        examinations: With the split of each patient.
        dimensions: Of the images.

    Raises:
        InputError: An image of the user's own is trained on and tested on; says the rows.
    """
    held = [
        Held(row.row or number, row.patient, row.split, row.label, _images_of(row))
        for number, row in enumerate(examinations.rows, start=1)
        if row.images
    ]
    if examinations.manifest is not None:
        try:
            return require_parted(held, dimensions)
        except DataError as error:
            msg = f"the manifest {examinations.manifest} is refused: {error}"
            raise InputError(msg) from None
    alike = find_same_images(held, dimensions, pixels=False).groups
    findings = (
        ("under different labels", [g for g in alike if len({one.label for one in g}) > 1]),
        ("in different splits", [g for g in alike if len({one.part for one in g}) > 1]),
        ("of different patients", [g for g in alike if len({one.patient for one in g}) > 1]),
    )
    return tuple(
        f"{len(groups)} images stand twice or more {how}, e.g. examinations "
        f"{' and '.join(str(one.row) for one in groups[0])} of the data (the first is 1): "
        "drop or mend them, or the test is not one."
        for how, groups in findings
        if groups
    )


def images_elsewhere(
    examinations: Examinations, assignment: Assignment, site: str, dimensions: int = 2
) -> tuple[str, ...]:
    """Return a sentence on images of a site that other sites have too, by the bytes of files."""
    held = [
        Held(
            number,
            row.patient,
            "here" if assignment.site_of[row.patient] == site else "elsewhere",
            row.label,
            _images_of(row),
        )
        for number, row in enumerate(examinations.rows, start=1)
        if row.images
    ]
    alike = find_same_images(held, dimensions, pixels=False).groups
    torn = [group for group in alike if len({one.part for one in group}) > 1]
    if not torn:
        return ()
    return (
        f"{len(torn)} images of {site} are at other hospitals too: for these patients this is no "
        "test of a hospital that took no part.",
    )


def _images_of(row: PublicExamination) -> tuple[Location, ...]:
    return tuple(parse_location(text, Path) for text in row.images.values())


def _classes(study: Study) -> tuple[str, ...]:
    return study.data.classes if study.task.classifies else ()
