"""What the hospital's page has done for it: one command on a site folder, in a process of its own.

A study is somebody else's: what it spends may take long to work out, and only the main thread of a
process can be interrupted at that. What is said goes to standard output, a line of JSON each:
``{"progress": [3, 100]}`` any number of times, then ``{"said": ...}`` or ``{"error": ...}``.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from wardround.common.errors import WardroundError, describe_defect
from wardround.common.runtime.system.processes import leave_cores_to_others

_NICENESS = 10  # the site's own training goes first; but whoever decides on a study is waiting
_PATIENT = ("check", "doctor")
_STEP = 50  # progress is told every so many examinations


def explain(site: Path, digest: str, mark: str) -> object:
    """Return what a study asks for here, and what the policy says of it."""
    from wardround.client.doctor.decisions import find_study, prepare_approval
    from wardround.client.doctor.policy import evaluate_policy
    from wardround.common.study.explain.study import explain_study

    study = find_study(site, digest)
    report = evaluate_policy(site, study)
    said = {
        "name": study.name,
        "explanation": explain_study(study),
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
        "problems": list(report.problems),
        "notes": list(report.notes),
        "allowed": report.allowed,
        "terms": [],
        "spending": "",
        "mark": "",
        "refusal": "",
    }
    try:
        approval = prepare_approval(site, digest)
    except WardroundError as error:  # it cannot be approved as things are; it can be read
        return {**said, "refusal": str(error)}
    lines = list(approval.terms.lines)
    told = {"terms": lines, "spending": approval.question, "mark": mark_of(lines)}
    return {**said, **told}


def approve(site: Path, digest: str, mark: str) -> object:
    """Approve a study, if it is still what the person was told."""
    from wardround.client.doctor import decisions

    approval = decisions.prepare_approval(site, digest)
    if mark_of([*approval.terms.lines]) != mark:
        return {"changed": True}
    return {"words": decisions.approve(site, approval)}


def reject(site: Path, digest: str, mark: str) -> object:
    """Reject a study."""
    from wardround.client.doctor import decisions

    return {"words": decisions.reject(site, digest)}


def check(site: Path, digest: str, mark: str) -> object:
    """Look at the site's data once; the report is written into the site folder too."""
    from wardround.client.clinic.onboarding.data_check.check import check_data, write_report
    from wardround.client.site.folder import open_site

    opened = open_site(site)
    report = check_data(opened, None, _tell)
    write_report(report, opened)
    findings = [
        {"name": one.name, "status": one.status, "fact": one.fact, "remedy": one.remedy}
        for one in report.findings
    ]
    counts = f"{report.examinations} examinations of {report.patients} patients"
    return {"made": report.made, "counts": counts, "findings": findings}


def doctor(site: Path, digest: str, mark: str) -> object:
    """Check everything that the site needs to take part."""
    from datetime import UTC, datetime

    from wardround.client.doctor.doctor import examine

    checks = examine(site, progress=_tell)
    findings = [asdict(one) for one in checks]
    return {"made": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "counts": "", "findings": findings}


ERRANDS: Mapping[str, Callable[[Path, str, str], object]] = {
    "explain": explain,
    "approve": approve,
    "reject": reject,
    "check": check,
    "doctor": doctor,
}


def mark_of(lines: list[str]) -> str:
    """Return a mark of what a person was told: something else has another one."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _tell(done: int, count: int) -> None:
    if done == count or done % _STEP == 0:
        _say({"progress": [done, count]})


def _say(content: object) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do the errand that the words of the command line name."""
    name, site, digest, mark = sys.argv[1:]
    if name in _PATIENT:
        leave_cores_to_others(_NICENESS)
    try:
        _say({"said": ERRANDS[name](Path(site), digest, mark)})
    except WardroundError as error:
        _say({"error": str(error)})
    except Exception as error:  # its own text may name a patient's file
        _say({"error": f"{describe_defect(error)}."})


if __name__ == "__main__":
    main()
