"""The doctor's look at the site folders beside this one: do the same patients have one ledger?

A hospital in two consortia has two site folders. Each of them can only count what it charges to a
ledger, so two ledgers of the same patients promise each patient twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.manifest.columns import file_columns
from wardround.client.data.manifest.table import read_table
from wardround.client.doctor.check import FaultError
from wardround.client.site.folder import Site, open_site
from wardround.client.tasks.words import tidy
from wardround.common.errors import WardroundError


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a manifest lists: patients by name, files by where they are."""

    patients: frozenset[str]
    files: frozenset[Path]


def neighbours_of(folder: Path) -> Iterator[Site]:
    """Yield the other site folders beside a folder, in the order of their names."""
    try:
        beside = sorted(folder.resolve().parent.iterdir())
    except OSError:
        return
    for other in beside:
        if other == folder.resolve() or not (other / "site.toml").exists():
            continue
        try:
            yield open_site(other)
        except (WardroundError, OSError):  # its own doctor says so
            continue


def check_one_ledger(site: Site) -> str:
    """Whether the site folders beside this one charge the same patients to the same ledger.

    Raises:
        FaultError: They charge another one, or hold other caps against it.
    """
    own, sharing = _listed(site), 0
    for other in neighbours_of(site.folder):
        theirs = _listed(other)
        files, patients = len(own.files & theirs.files), len(own.patients & theirs.patients)
        if other.ledger_folder == site.ledger_folder:
            sharing += 1
            _check_caps(site, other)
        elif files:
            fact = f"{files} files are those of {other.folder.name} too, which has another ledger"
            raise FaultError(fact=fact, remedy=_remedy(other))
        elif patients:
            fact = (
                f"{patients} patients have the same names as in {other.folder.name}, which has "
                "another ledger"
            )
            raise FaultError(fact=fact, remedy=f"if they are: {_remedy(other)}", status="warn")
    if sharing:
        return f"shared with {sharing} site folders beside this one"
    return "no site folder beside this one has the same patients"


def _check_caps(site: Site, other: Site) -> None:
    """Check that both hospitals' files hold the same caps against the sum.

    Raises:
        FaultError: They do not, a warning: each stops at its own.
    """
    from wardround.client.policy.policy import open_policy

    try:
        ours, theirs = open_policy(site.folder), open_policy(other.folder)
    except WardroundError:  # the check "policy" says so
        return
    if (ours.lifetime_epsilon, ours.lifetime_delta) != (
        theirs.lifetime_epsilon,
        theirs.lifetime_delta,
    ):
        fact = (
            f"lifetime_epsilon is {ours.lifetime_epsilon:g} here and {theirs.lifetime_epsilon:g} "
            f"in {other.folder.name}, or lifetime_delta differs: together they spend the larger"
        )
        remedy = "write the same caps in both files policy.toml."
        raise FaultError(fact=fact, remedy=remedy, status="warn")


def _remedy(other: Site) -> str:
    return f"have both site.toml name one folder, e.g. ledger = '{other.ledger_folder}'."


def _listed(site: Site) -> _Listed:
    """Return what a site's manifest lists; nothing where it cannot be read."""
    try:
        table = read_table(site.manifest_path)
    except WardroundError:
        return _Listed(frozenset(), frozenset())
    names = table.place("patient")
    columns = file_columns(table)
    patients = {tidy(line.cells[names]) for line in table.lines if names is not None}
    cells = {line.cells[place] for line in table.lines for place in columns}
    # Of an item of an array file the whole text: two sites may hold items of one file.
    files = frozenset((site.data_root / cell).resolve() for cell in cells if cell)
    return _Listed(frozenset(patients - {""}), files)
