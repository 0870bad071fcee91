"""Dividing a data set's patients among simulated hospitals. No patient is ever in two.

Whatever the method, every site gets at least one patient of each split that the study needs, or as
many patients as it has to draw for these itself where the data set does not say who is tested on:
where the division leaves a site without, patients move there from the site with the most.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.manifest.rows import name_rows
from wardround.common.errors import InputError
from wardround.common.runtime.system.names import fits_everywhere
from wardround.common.study.sections.fields import NAME_LETTERS
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import Examinations
from wardround.simulations.sites.assignment import (
    Assignment,
    draw_splits,
    missing_classes,
    needed_splits,
    split_table,
)


@dataclass(frozen=True, slots=True)
class Patient:
    """What a split looks at.

    Attributes:
        label: The patient's class; of several examinations or classes, the first.
        split: The data set's; "" where the site will draw it.
        natural_site: The hospital the patient really was in, or "".
    """

    name: str
    label: str
    split: str
    natural_site: str


Places = list[int]  # the number of the site of each patient, in the patients' order


def split_examinations(examinations: Examinations, study: Study) -> Assignment:
    """Divide patients among sites as ``[simulation]`` says; the same seed, the same sites.

    Raises:
        InputError: The data set has no natural sites, no labels for a split by label, or fewer
            patients than there are sites to fill; says what to change.
    """
    patients = gather_patients(examinations, study)
    if study.simulation.split == "natural":
        assignment = _natural(patients, study)
    else:
        assignment = _drawn(patients, study)
    assignment = draw_splits(examinations, assignment, study)
    table = split_table(examinations, assignment, study)
    return replace(assignment, notes=(*assignment.notes, *missing_classes(table)))


def gather_patients(examinations: Examinations, study: Study) -> tuple[Patient, ...]:
    """Return the patients in the data set's order.

    Raises:
        InputError: A patient's examinations are in two splits or two natural sites.
    """
    patients: dict[str, Patient] = {}
    torn: dict[str, int] = {}
    for row in examinations.rows:
        label = row.label.partition(";")[0]
        new = Patient(row.patient, label, row.split, row.natural_site)
        known = patients.setdefault(row.patient, new)
        if (known.split, known.natural_site) != (new.split, new.natural_site):
            torn.setdefault(row.patient, row.row)
    if torn:
        rows = sorted(torn.values())
        where = f" ({name_rows(rows)})" if study.simulation.data == "folder" else ""
        who = "1 patient has" if len(torn) == 1 else f"{len(torn)} patients have"
        msg = (
            f"{who} examinations in more than one split or natural site{where}: give all "
            "examinations of a patient the same."
        )
        raise InputError(msg)
    return tuple(patients.values())


# --- Natural sites -------------------------------------------------------------
def _natural(patients: Sequence[Patient], study: Study) -> Assignment:
    nameless = sum(not patient.natural_site for patient in patients)
    if nameless:
        msg = (
            f"{nameless} of {len(patients)} patients have no natural site: set simulation.split to "
            "iid, dirichlet, quantity, one-large or classes."
        )
        raise InputError(msg)
    originals = tuple(dict.fromkeys(patient.natural_site for patient in patients))
    names, called = _site_names(originals)
    if len({name.casefold() for name in names.values()}) < len(names):
        msg = f"two of the {len(names)} natural sites have the same name for a folder: rename one."
        raise InputError(msg)
    for site, name in names.items():
        _check_site(name, [patient for patient in patients if patient.natural_site == site], study)
    wanted = study.simulation.sites
    notes = called
    if "sites" in study.simulation.model_fields_set and wanted != len(names):
        notes += (
            f"The data has {len(names)} natural sites; simulation.sites = {wanted} was not used.",
        )
    return Assignment(
        tuple(names.values()), {p.name: names[p.natural_site] for p in patients}, notes
    )


def _check_site(name: str, patients: Sequence[Patient], study: Study) -> None:
    for split, fewest in _fewest(patients, study).items():
        held = sum(patient.split == split for patient in patients)
        if held >= fewest:
            continue
        if not split:
            msg = (
                f"the natural site {name} has {held} patients for {fewest} splits: join it with "
                "another site, or set a fraction of evaluation to 0 (validation and test only)."
            )
        else:
            msg = (
                f"the natural site {name} has no {split} patients: join it with another site, "
                f"write {split} in the column split for some of its patients, or set "
                f"evaluation.{split}_fraction = 0 (validation and test only)."
            )
        raise InputError(msg)


def _fewest(patients: Sequence[Patient], study: Study) -> dict[str, int]:
    """Return how many patients of each split a site needs; of "" where it draws the splits."""
    needed = needed_splits(study)
    return dict.fromkeys(needed, 1) if any(p.split for p in patients) else {"": len(needed)}


def _site_names(originals: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return each natural site's name as a site, and what to say of those that are numbered.

    A simulated site's name is of Latin letters: another one, Greek for example, would be hyphens
    alone. A real hospital keeps its name.
    """
    names, numbered = dict[str, str](), []
    for number, original in enumerate(originals, start=1):
        composed = normalize("NFC", original.strip())
        if any(one.isalpha() and not re.match(f"[{NAME_LETTERS}]", one) for one in composed):
            names[original] = f"site-{number}"
            numbered.append(names[original])
        else:
            names[original] = _site_name(original)
    if not numbered:
        return names, ()
    said = (
        f"{len(numbered)} of the {len(names)} natural sites have names in letters that are not "
        f"Latin, as those of simulated sites must be: they are called {', '.join(numbered)}, by "
        "their order in the manifest."
    )
    return names, (said,)


def _site_name(original: str) -> str:
    """Return a natural site's name as one that a site may have; accents stay."""
    composed = normalize("NFC", original.strip())
    cleaned = re.sub(rf"[^{NAME_LETTERS} ._-]", "-", composed)[:60]
    while len(cleaned.encode()) > 60:
        cleaned = cleaned[:-1]
    cleaned = cleaned.rstrip(" .")
    is_name = re.match(f"[{NAME_LETTERS}]", cleaned) and fits_everywhere(cleaned)
    return cleaned if is_name else f"site-{cleaned}"


# --- Drawn sites ---------------------------------------------------------------
def _drawn(patients: Sequence[Patient], study: Study) -> Assignment:
    simulation = study.simulation
    fewest = _fewest(patients, study)
    _check_enough(patients, simulation.sites, fewest)
    if simulation.split in ("dirichlet", "classes"):
        _check_labels(patients, study)
    generator = np.random.default_rng(simulation.seed)
    places = _METHODS[simulation.split](patients, study, generator)
    moved = _fill_gaps(places, patients, simulation.sites, fewest)
    names = tuple(f"hospital-{number + 1}" for number in range(simulation.sites))
    site_of = {patient.name: names[place] for patient, place in zip(patients, places, strict=True)}
    notes = (f"{moved} patients were moved so that every site has each split.",) if moved else ()
    return Assignment(names, site_of, notes)


def _check_enough(patients: Sequence[Patient], sites: int, fewest: Mapping[str, int]) -> None:
    for split, wanted in fewest.items():
        count = sum(patient.split == split for patient in patients)
        if count < sites * wanted:
            of_whom = f"{split} patients (of {len(patients)})" if split else "patients"
            each = "" if wanted == 1 else f", and each needs {wanted}"
            msg = (
                f"there are {count} {of_whom} for {sites} sites{each}: "
                f"lower simulation.sites, take more patients, or change the study's "
                f"evaluation fractions (0 where the data set has no such split)."
            )
            raise InputError(msg)


def _check_labels(patients: Sequence[Patient], study: Study) -> None:
    classes = {patient.label for patient in patients}
    split = study.simulation.split
    if len(classes) < 2:
        msg = (
            f"simulation.split = {split!r} needs labels, and these patients have none to tell "
            "apart: set it to iid or quantity, and let [[simulation.shift]] make the sites differ."
        )
        raise InputError(msg)
    per_site, sites = study.simulation.classes_per_site, study.simulation.sites
    if split == "classes" and not len(classes) <= per_site * sites:
        msg = (
            f"{sites} sites with {per_site} classes each cannot hold {len(classes)} classes: "
            "raise simulation.classes_per_site or simulation.sites."
        )
        raise InputError(msg)


def _shuffled(patients: Sequence[Patient], generator: np.random.Generator) -> dict[str, list[int]]:
    """Return the patients' indices by split, each in a drawn order."""
    groups: dict[str, list[int]] = {}
    for index in generator.permutation(len(patients)).tolist():
        groups.setdefault(patients[index].split, []).append(index)
    return {split: groups[split] for split in sorted(groups)}


def _iid(patients: Sequence[Patient], study: Study, generator: np.random.Generator) -> Places:
    """Deal shuffled patients like cards, split after split: equal sizes, no other rule."""
    places = [0] * len(patients)
    dealt = 0
    for indices in _shuffled(patients, generator).values():
        for index in indices:
            places[index] = dealt % study.simulation.sites
            dealt += 1
    return places


def _quantity(patients: Sequence[Patient], study: Study, generator: np.random.Generator) -> Places:
    """Sites of unequal size: shares drawn from Dirichlet(alpha), the same in every split."""
    sites = study.simulation.sites
    shares = generator.dirichlet(np.full(sites, study.simulation.alpha))
    return _by_share(patients, shares, generator)


def _one_large(patients: Sequence[Patient], study: Study, generator: np.random.Generator) -> Places:
    """The first site has half of the patients, the others equal parts of the rest."""
    sites = study.simulation.sites
    shares = np.full(sites, 0.5 / max(1, sites - 1))
    shares[0] = 1 - shares[1:].sum()
    return _by_share(patients, shares, generator)


def _by_share(
    patients: Sequence[Patient], shares: NDArray[np.float64], generator: np.random.Generator
) -> Places:
    places = [0] * len(patients)
    for indices in _shuffled(patients, generator).values():
        ends = np.rint(np.cumsum(shares) * len(indices)).astype(int)
        for rank, index in enumerate(indices):
            places[index] = min(int(np.searchsorted(ends, rank, side="right")), len(shares) - 1)
    return places


def _dirichlet(patients: Sequence[Patient], study: Study, generator: np.random.Generator) -> Places:
    """Sites of equal size with their own mix of classes (Hsu, Qi and Brown 2019, section 3).

    Each site draws its mix q from a Dirichlet distribution around the mix p of all patients, and
    then its patients by q, without replacement; a class that is used up drops out of q. The
    concentration is ``alpha * K * p`` for K classes, where the paper has ``alpha * p``: so with
    equally frequent classes alpha is that of the symmetric Dirichlet(alpha, ..., alpha).
    """
    sites = study.simulation.sites
    classes = sorted({patient.label for patient in patients})
    counts = np.array([sum(p.label == name for p in patients) for name in classes])
    concentration = study.simulation.alpha * len(classes) * counts / counts.sum()
    # A tiny alpha can underflow to a mix of zeros and NaN; the floor keeps it a distribution.
    mixes = generator.dirichlet(np.maximum(concentration, 1e-3), size=sites)
    places = [0] * len(patients)
    dealt = 0
    for indices in _shuffled(patients, generator).values():
        left = [[i for i in indices if patients[i].label == name] for name in classes]
        for _ in indices:
            site = dealt % sites
            weights = mixes[site] * [bool(members) for members in left]
            if not weights.sum() > 0:
                weights = np.array([float(len(members)) for members in left])
            drawn = generator.random() * weights.sum()
            chosen = int(np.searchsorted(np.cumsum(weights), drawn, side="right"))
            places[left[chosen].pop()] = site
            dealt += 1
    return places


def _classes(patients: Sequence[Patient], study: Study, generator: np.random.Generator) -> Places:
    """Sites that see only some classes (after McMahan et al. 2017, section 3).

    Classes are dealt to sites, ``classes_per_site`` each, every class at least once; a class's
    patients are shared equally by its sites. The paper cuts label-sorted data into shards, which
    gives a site its number of classes only where classes are equally frequent.
    """
    sites = study.simulation.sites
    classes = sorted({patient.label for patient in patients})
    per_site = min(study.simulation.classes_per_site, len(classes))
    order = generator.permutation(len(classes)).tolist()
    holders: dict[str, list[int]] = {name: [] for name in classes}
    for turn in range(sites * per_site):  # neighbours in the order: never a class twice in a site
        holders[classes[order[turn % len(classes)]]].append(turn // per_site)
    places = [0] * len(patients)
    dealt = dict.fromkeys(classes, 0)
    for indices in _shuffled(patients, generator).values():
        for index in indices:
            label = patients[index].label
            places[index] = holders[label][dealt[label] % len(holders[label])]
            dealt[label] += 1
    return places


def _fill_gaps(
    places: Places, patients: Sequence[Patient], sites: int, fewest: Mapping[str, int]
) -> int:
    """Give every site the fewest patients of each split, and return how many had to move.

    A patient moves from the site with the most, of a class the poor site knows if there is one.
    """
    moved = 0
    for split, wanted in fewest.items():
        members = [index for index, patient in enumerate(patients) if patient.split == split]
        for site in [site for site in range(sites) for _ in range(wanted)]:
            counts = np.bincount([places[index] for index in members], minlength=sites)
            if counts[site] >= wanted:
                continue
            known = {p.label for p, place in zip(patients, places, strict=True) if place == site}
            donors = [index for index in members if places[index] == int(np.argmax(counts))]
            fitting = [index for index in donors if patients[index].label in known]
            places[(fitting or donors)[0]] = site
            moved += 1
    return moved


_METHODS: Mapping[str, Callable[[Sequence[Patient], Study, np.random.Generator], Places]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "quantity": _quantity,
    "one-large": _one_large,
    "classes": _classes,
}
