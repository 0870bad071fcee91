"""``make faults``: runs the table of faults against real processes and writes what it saw.

``python -m tests.faults 5 6 7`` runs some of them and prints; only a run of all writes the page.
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.invariants import check_invariants
from tests.faults.stage import Stage
from tests.faults.table import FAULTS, Fault

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a fault."""

    fault: Fault
    problem: str
    seconds: float


def main() -> int:
    """Run the faults; return how many were not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", help="faults to run; all if none is given")
    parser.add_argument("--keep", type=Path, help="a folder for all files, which is kept")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    chosen = [one for one in FAULTS if not options.numbers or one.number in options.numbers]
    seen = run_all(chosen, options.keep)
    sys.stdout.write(table_of(seen) + "\n")
    if options.write:
        write_page(seen)
    return sum(bool(one.problem) for one in seen)


def run_all(faults: list[Fault], keep: Path | None) -> list[Seen]:
    seen: list[Seen] = []
    stage: Stage | None = None
    folder = Path()
    try:
        for fault in faults:
            if stage is None:
                folder = Path(tempfile.mkdtemp(prefix="f", dir=keep))
                stage = Stage(folder)
                stage.open()
            seen.append(run_one(stage, fault))
            sys.stdout.write(_line(seen[-1]) + "\n")
            sys.stdout.flush()
            if seen[-1].problem:  # what a fault that was not survived leaves is no place for others
                stage.close()
                stage = None
    finally:
        if stage is not None:
            stage.close()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return seen


def run_one(stage: Stage, fault: Fault) -> Seen:
    stage.restore()
    (stage.plans / "calls.log").touch()
    began, problem = time.monotonic(), ""
    try:
        check_invariants(stage, fault.act(stage))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or [type(error).__name__]
        problem = lines[0]
    return Seen(fault, problem, time.monotonic() - began)


def _line(one: Seen) -> str:
    return f"{one.fault.number:>3} {one.fault.name}: {one.problem or 'pass'}, {one.seconds:.1f} s"


def table_of(seen: list[Seen]) -> str:
    """Return the table as it stands in the page."""
    rows = ["| | fault | what must come of it | | seconds |", "|---|---|---|---|---|"]
    for one in seen:
        fault, mark = one.fault, f"**no: {one.problem}**" if one.problem else "pass"
        rows.append(
            f"| {fault.number} | {fault.name} | {fault.expected} | {mark} | {one.seconds:.0f} |"
        )
    passed = sum(not one.problem for one in seen)
    rows += ["", f"{passed} of {len(seen)} passed, {datetime.now(UTC):%Y-%m-%d}."]
    return "\n".join(rows)


def write_page(seen: list[Seen]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table_of(seen)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
