"""The report's section on what a curious server would have seen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wardround.simulations.report.charts.pictures import Panel, Picture, picture_uri
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.run_files.attack_findings import (
    AttackPictures,
    AuditFinding,
    Finding,
    Findings,
    read_attack_pictures,
    read_findings,
)

NO_PLAN = (
    "Its network, or another key of its study, rules that out, so nothing is compared: "
    "'wardround study privacy STUDY' says which."
)


@dataclass(frozen=True, slots=True)
class AttackSection:
    """What the section shows.

    Attributes:
        summary: Sentences above the table.
        pictures: Original and reconstructions, a row a patient and attack.
        not_run: Sentences on the attacks that were not run.
    """

    summary: tuple[str, ...]
    table: Table | None
    pictures: tuple[Picture, ...]
    not_run: tuple[str, ...]


def read_attack_section(run: Path) -> AttackSection | None:
    """Return the section of a run folder, None if the run was never attacked.

    Raises:
        InputError: What the attack left is damaged.
    """
    findings = read_findings(run)
    if findings is None:
        return None
    return AttackSection(
        summary=tuple(_summarise(findings)),
        table=_tabulate(findings),
        pictures=_draw(read_attack_pictures(run), findings.site),
        not_run=tuple(f"{miss.attack}: {miss.reason}" for miss in findings.not_run),
    )


def _summarise(findings: Findings) -> Iterator[str]:
    yield (
        f"One training step of {findings.site} with the first model, as its server would see it. "
        "The attacker knows the model, the method and that nobody else took part in the step."
    )
    if findings.own_plan:
        yield f"Protection of this run: {findings.plan}."
    elif not findings.plan:
        yield f"This run had no privacy for patients. {NO_PLAN}"
    else:
        yield (
            "This run had no privacy for patients: its server saw what stands under 'none'. "
            f"For comparison: {findings.plan}."
        )
    if findings.audit is not None:
        yield _audit_sentence(findings.audit)


def _audit_sentence(audit: AuditFinding) -> str:
    verdict = (
        "no contradiction; the bound is a few times too low by its nature"
        if audit.proven <= audit.claimed
        else "MORE WAS LOST THAN IS CLAIMED: do not use this privacy"
    )
    where = (
        f" of the masked sum of {audit.shares} hospitals' shares of noise" if audit.shares else ""
    )
    return (
        f"Of {audit.canaries} planted patients{where}, each in the training data or not by a fair "
        f"coin, {audit.guesses} were guessed and {audit.correct} rightly. That proves epsilon of "
        f"at least {audit.proven:.2f} ({audit.confidence:.0%} confidence); {audit.claimed:.2f} is "
        f"claimed: {verdict}."
    )


def _tabulate(findings: Findings) -> Table | None:
    if not findings.rows:
        return None
    rows = tuple((row.attack, _cells(row)) for row in findings.rows)
    columns = ("protection", "likeness", "patients identified", "time")
    caption = (
        "Likeness: mean correlation of what was brought back with the patient's own image or "
        "values; 1 is the same. Identified: nearest to the right patient among the "
        "candidates."
    )
    return Table(caption, "attack", columns, rows)


def _cells(row: Finding) -> tuple[Cell, ...]:
    likeness = "–" if math.isnan(row.likeness) else f"{row.likeness:.3f}"
    identified = f"{row.identified} of {row.patients}"
    return (
        Cell(row.protection),
        Cell(likeness),
        Cell(identified, f"among {row.candidates}"),
        Cell(f"{row.seconds:.1f} s"),
    )


def _draw(pictures: AttackPictures | None, site: str) -> tuple[Picture, ...]:
    if pictures is None:
        return ()
    drawn = []
    for attack, panels in zip(pictures.attack, pictures.images, strict=True):
        labelled = zip(pictures.labels, panels, strict=True)
        shown = tuple(
            Panel(str(label), f"{label}, {attack}, of {site}", picture_uri(image))
            for label, image in labelled
        )
        drawn.append(Picture(site, shown, str(attack)))
    return tuple(drawn)
