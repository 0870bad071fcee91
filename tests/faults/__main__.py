"""``make faults``: runs the table of faults against real processes and writes what it saw.

``python -m tests.faults 5 6 7`` runs some of them and prints; only a run of all writes the page.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.faults.full_disk import own_mounts
from tests.faults.invariants import check_invariants
from tests.faults.not_here import NotHereError
from tests.faults.schedules import draw_schedule, run_schedule
from tests.faults.stage import Stage
from tests.faults.table import FAULTS
from tests.faults.table.fault import Fault

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "reliability.md"
_PROGRAM = (sys.executable, "-m", "tests.faults")
TABLE, SCHEDULES = "faults", "schedules"  # the places in the page
MASKED_SCHEDULES = "masked schedules"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a fault."""

    fault: Fault
    problem: str
    seconds: float
    lacking: str = ""  # what this machine lacks for it


def main() -> int:
    """Run the faults; return how many were not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", help="faults to run; all if none is given")
    parser.add_argument("--keep", type=Path, help="a folder for all files, which is kept")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument("--schedules", type=int, default=0, help="so many random schedules instead")
    parser.add_argument("--first", type=int, default=0, help="seed of the first schedule")
    parser.add_argument("--masked", action="store_true", help="schedules of a study that masks")
    parser.add_argument("--stages", type=int, default=1, help="all faults, on so many stages")
    parser.add_argument("--seen", type=Path, help="a file for what came of them, for --stages")
    options = parser.parse_args()
    own_mounts()
    if options.schedules:
        seeds = range(options.first, options.first + options.schedules)
        seen = run_all([scheduled(seed, options.masked) for seed in seeds], options.keep)
        place = MASKED_SCHEDULES if options.masked else SCHEDULES
        text = words_of(seen)
    elif options.stages > 1:
        seen = run_side_by_side(options.stages, options.keep)
        place, text = TABLE, table_of(seen)
    else:
        chosen = [one for one in FAULTS if not options.numbers or one.number in options.numbers]
        seen = run_all(chosen, options.keep)
        place, text = TABLE, table_of(seen)
    sys.stdout.write(text + "\n")
    if options.seen:
        facts = [[one.fault.number, one.problem, one.seconds, one.lacking] for one in seen]
        options.seen.write_text(json.dumps(facts), encoding="utf-8")
    if options.write:
        write_page(place, text)
    return sum(bool(one.problem) for one in seen)


def run_side_by_side(stages: int, keep: Path | None) -> list[Seen]:
    """Have processes of this program run some of the faults each, at the same time."""
    folder = Path(tempfile.mkdtemp(prefix="seen"))
    paths = [folder / str(number) for number in range(stages)]
    keeping = ["--keep", str(keep)] if keep else []
    shares = [[one.number for one in FAULTS[number::stages]] for number in range(stages)]
    running = [
        subprocess.Popen([*_PROGRAM, *share, "--seen", str(path), *keeping])
        for share, path in zip(shares, paths, strict=True)
    ]
    for process in running:
        process.wait()
    facts = {one[0]: one[1:] for path in paths for one in json.loads(path.read_text())}
    shutil.rmtree(folder)
    return [Seen(fault, *facts[fault.number]) for fault in FAULTS]


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
    began, problem = time.monotonic(), ""
    try:
        stage.restore()
        (stage.plans / "calls.log").touch()
        began = time.monotonic()
        check_invariants(stage, fault.act(stage))
    except NotHereError as lacking:
        return Seen(fault, "", time.monotonic() - began, str(lacking))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or [type(error).__name__]
        problem = lines[0]
    return Seen(fault, problem, time.monotonic() - began)


def _line(one: Seen) -> str:
    said = one.problem or one.lacking or "pass"
    return f"{one.fault.number:>3} {one.fault.name}: {said}, {one.seconds:.1f} s"


def table_of(seen: list[Seen]) -> str:
    """Return the table as it stands in the page."""
    rows = ["| | fault | what must come of it | | seconds |", "|---|---|---|---|---|"]
    for one in seen:
        fault, mark = one.fault, f"**no: {one.problem}**" if one.problem else "pass"
        mark = f"not here: {one.lacking}" if one.lacking else mark
        rows.append(
            f"| {fault.number} | {fault.name} | {fault.expected} | {mark} | {one.seconds:.0f} |"
        )
    passed = sum(not (one.problem or one.lacking) for one in seen)
    rows += ["", f"{passed} of {len(seen)} passed, {datetime.now(UTC):%Y-%m-%d}."]
    return "\n".join(rows)


def words_of(seen: list[Seen]) -> str:
    """Return what came of random schedules, as it stands in the page."""
    failed = [f"seed {one.fault.number}: {one.problem}" for one in seen if one.problem]
    seconds = sorted(one.seconds for one in seen)
    return (
        f"{len(seen)} random schedules, {len(failed)} violations, {datetime.now(UTC):%Y-%m-%d}; "
        f"{seconds[len(seconds) // 2]:.0f} s each in the median, {seconds[-1]:.0f} s at most."
        + "".join(f"\n- {line}" for line in failed)
    )


def scheduled(seed: int, masked: bool = False) -> Fault:
    """Return a random schedule as one fault.

    Args:
        masked: Whether the sites mask their updates.
    """
    schedule = draw_schedule(seed, masked)
    name = "; ".join(map(str, schedule))
    # A site masks no update twice: each schedule's study trains from a seed of its own.
    act = partial(run_schedule, schedule=schedule, masked_seed=1_000 + seed if masked else None)
    return Fault(str(seed), name, "the same model", act)


def write_page(place: str, text: str) -> None:
    """Put a text between the page's marks of a place."""
    begin, end = f"<!-- {place}: begin -->", f"<!-- {place}: end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
