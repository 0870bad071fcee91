"""``wardround attack FOLDER``: what a curious server would have seen of a simulated run."""

import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from wardround.common.errors import InputError
from wardround.simulations.run_files.attack_findings import AuditFinding, Finding, Findings


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """The words of the command line.

    Attributes:
        site: Whose patients are attacked; None takes the first site.
        seconds: Of each search for an image.
        canaries: Planted patients of the audit; 0 leaves it out.
    """

    run: Path
    site: str | None = None
    patients: int = 4
    seconds: float = 15.0
    canaries: int = 1000
    seed: int = 0
    as_json: bool = False


def run_attack(options: AttackOptions) -> None:
    """Attack a finished run, add the findings to its report and print them.

    Raises:
        InputError: The folder is no finished simulated run, or its study does not fit.
    """
    from wardround.common.study.loading import load_study
    from wardround.simulations.privacy_attacks.inspection import Effort, inspect_target
    from wardround.simulations.privacy_attacks.target import open_target, site_folder
    from wardround.simulations.report import write_report
    from wardround.simulations.run_files.attack_findings import write_findings
    from wardround.simulations.run_files.folder import read_facts

    run = options.run
    facts = read_facts(run)
    if facts.status != "finished":
        again = f"wardround simulate --resume {shlex.quote(str(run))}"
        msg = f"{run} is not finished (status: {facts.status}): go on first with: {again}"
        raise InputError(msg)
    folder, study = site_folder(run, options.site), load_study(run / "study.toml")
    target = open_target(folder, study, options.seed)
    effort = Effort(options.patients, options.seconds, options.canaries, options.seed)
    findings, pictures = inspect_target(target, effort)
    write_findings(run, findings, pictures)
    report = write_report(run)
    if options.as_json:
        sys.stdout.write(json.dumps(_finite(findings), indent=2) + "\n")
    else:
        _print(findings, report)


def _finite(findings: Findings) -> dict[str, object]:
    """Return the findings for JSON, which knows no infinity."""
    content = asdict(findings)
    if findings.audit is not None and math.isinf(findings.audit.claimed):
        content["audit"]["claimed"] = None
    return content


def _print(findings: Findings, report: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from wardround.simulations.report.sections.attack import NO_PLAN

    console = Console()
    whose = f"One training step of {findings.site} ({findings.network}), as its server sees it."
    console.print(whose, markup=False, style="bold")
    if findings.plan:
        console.print(f"Protection: {findings.plan}", markup=False)
    else:
        console.print(f"Protection: none can be compared. {NO_PLAN}", markup=False)
    if not findings.own_plan:
        console.print("The run itself had no such protection.", markup=False)
    table = Table("attack", "protection", "likeness", "identified", "seconds")
    for row in findings.rows:
        table.add_row(*_cells(row))
    if findings.rows:
        console.print(table)
    for miss in findings.not_run:
        console.print(f"Not run: {miss.attack}: {miss.reason}", markup=False)
    if findings.audit is not None:
        audit = findings.audit
        console.print(
            f"Planted patients{_of_the_sum(audit)}: epsilon is at least {audit.proven:.2f} "
            f"({audit.confidence:.0%} confidence); claimed {audit.claimed:.2f}.",
            markup=False,
        )
    warning = "An attack that fails proves nothing: others may know more, or try longer."
    console.print(warning, markup=False)
    console.print(f"Report: {report}", markup=False, soft_wrap=True)


def _of_the_sum(audit: AuditFinding) -> str:
    return f", in the masked sum of {audit.shares} hospitals" if audit.shares else ""


def _cells(row: Finding) -> tuple[str, ...]:
    identified = f"{row.identified} of {row.patients}, among {row.candidates}"
    return row.attack, row.protection, f"{row.likeness:.3f}", identified, f"{row.seconds:.1f}"
