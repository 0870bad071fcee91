"""What ``wardround simulate --leave-one-site-out`` and ``--seeds`` do once their words are read."""

import json
import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import InputError
from wardround.simulations.cli.simulate import (
    Options,
    check_alone,
    machine_of,
    new_folder_for,
    page_of,
    resolve_study,
    tracked_by,
    watched,
)

if TYPE_CHECKING:
    from wardround.simulations.experiment.federation import Machine
    from wardround.simulations.experiment.series.series import SeriesRequest
    from wardround.simulations.report.pages.series_page import SeriesContents
    from wardround.simulations.run_files.events import Watch

MOST_SEEDS = 100
_WIDEST_NAME = 26  # of 80 columns
_LARGEST_SEED = 2**31 - 1  # as federation.seed


def run_several(options: Options) -> int:
    """Make the runs, show the progress, print what they say together, and return the exit code."""
    from wardround.simulations.experiment.series.series import SeriesRequest

    machine, request = machine_of(options), None
    if options.resume is not None:
        check_alone(options)
        out = options.resume
    else:
        seeds = parse_seeds(options)
        study = resolve_study(options)
        out = options.out or new_folder_for(study)
        request = SeriesRequest(
            study=study,
            out=out,
            leave_one_site_out=options.leave_one_site_out,
            seeds=seeds,
            machine=machine,
            data_root=options.data_root,
            assignment=options.assignment,
            skip_unreadable=options.skip_unreadable,
            command=("wardround", *sys.argv[1:]),
        )
    with page_of(options, out) as announce:
        announce()
        return _run(options, machine, request, out)


def _run(options: Options, machine: "Machine", request: "SeriesRequest | None", out: Path) -> int:
    from wardround.simulations.experiment.series.harmonised import is_pair
    from wardround.simulations.experiment.series.series import resume_series, run_series
    from wardround.simulations.run_files.series import read_series

    if options.also_unharmonised or is_pair(out):
        return _run_pair(options, machine, request, out)
    was_finished = request is None and read_series(out).finished is not None

    def work(watch: "Watch") -> None:
        if request is None:
            resume_series(out, machine, watch)
        else:
            run_series(request, watch)

    with tracked_by(options, out):
        is_done = watched(options, work, lambda: _farewell(out))
    if not is_done:
        return 130
    if was_finished:
        sys.stderr.write(f"{out} is finished: nothing is left to do, and nothing was changed.\n")
    print_series(out, as_json=options.as_json)
    return 0


def _run_pair(
    options: Options, machine: "Machine", request: "SeriesRequest | None", out: Path
) -> int:
    from wardround.simulations.experiment.series import harmonised

    found: list[harmonised.UnseenRow] = []

    def work(watch: "Watch") -> None:
        if request is None:
            found.extend(harmonised.resume_pair(out, machine, watch))
        else:
            found.extend(harmonised.run_pair(request, watch))

    if not watched(options, work, lambda: _farewell(out)):
        return 130
    if options.as_json:
        rows = [_finite(asdict(row)) for row in found]
        sys.stdout.write(json.dumps({"series": str(out), "unseen": rows}, indent=2) + "\n")
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("seed", "took no part", "metric", "as it is", "alike", "gain", box=box.SIMPLE)
    for row in found:
        numbers = (f"{row.as_they_are:.3f}", f"{row.harmonised:.3f}", f"{row.gain:+.3f}")
        table.add_row(str(row.seed), row.site, row.metric, *numbers)
    console.print("Sites that took no part, all their patients:", style="bold")
    console.print(table)
    console.print(f"Tables and reports: {out}", markup=False)
    return 0


def parse_seeds(options: Options) -> tuple[int, ...]:
    """Return the seeds of ``--seeds 0,1,2``; none where it was not given.

    Raises:
        InputError: It is no list of whole numbers, or ``--seed`` says another one.
    """
    text = options.seeds
    if text is None:
        return ()
    if options.seed is not None:
        msg = f"--seeds {text} and --seed {options.seed} both say which seed: keep one."
        raise InputError(msg)
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdecimal())]
    wrong = wrong or [word for word in words if int(word) > _LARGEST_SEED]
    if wrong:
        msg = f"--seeds {text}: {wrong[0]!r} is no seed: give whole numbers, as --seeds 0,1,2."
        raise InputError(msg)
    seeds = tuple(int(word) for word in words)
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        msg = f"--seeds {text} names {twice} twice: each run is the same again; name it once."
        raise InputError(msg)
    if len(seeds) > MOST_SEEDS:
        msg = f"--seeds names {len(seeds)} seeds: give {MOST_SEEDS} at most."
        raise InputError(msg)
    return seeds


def print_series(folder: Path, as_json: bool = False) -> None:
    """Print what a finished series says."""
    from wardround.simulations.report.pages.series_page import read_series_contents

    contents = read_series_contents(folder)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(contents), indent=2) + "\n")
    else:
        _print(contents)


def _print(contents: "SeriesContents") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    for run, missed in _lost(contents).items():
        words = ", ".join(f"{site} {count} rounds" for site, count in missed.items())
        console.print(f"{run}: without {words}", markup=False, style="bold")
    for section in contents.sections:
        for place, sentence in enumerate(section.answer):
            console.print(sentence, markup=False, style=None if place else "bold")
        for table in section.tables:
            console.print(table.caption, markup=False)
            width = min(max(len(heading) for heading, _ in table.rows), _WIDEST_NAME)
            names = Column(table.corner, overflow="fold", min_width=width)
            drawn = Table(names, *table.columns, box=box.SIMPLE, padding=(0, 1, 0, 0))
            for heading, cells in table.rows:
                drawn.add_row(heading, *(cell.text for cell in cells))
            console.print(drawn)
    console.print("The intervals stand in the report, and in what --json prints.", markup=False)
    console.print(f"Report: {contents.folder / 'report.html'}", markup=False)


def _lost(contents: "SeriesContents") -> dict[str, dict[str, int]]:
    """Return, of each run that lost a site, in how many rounds each site did not train."""
    from wardround.simulations.run_files.folder import read_facts

    folders = sorted((contents.folder / "runs").iterdir())
    found = {path.name: read_facts(path).missed for path in folders if (path / "run.json").exists()}
    return {run: missed for run, missed in found.items() if missed}


def _as_json(contents: "SeriesContents") -> dict[str, object]:
    from wardround.simulations.evidence.generalisation import expectation, spreads
    from wardround.simulations.report.pages.series_page import drawn_by_seeds

    rows = contents.rows
    metric = next((row.metric for row in rows), contents.study.metric)
    expected = expectation(rows, metric)
    several = len(contents.facts.seeds) > 1
    return {
        "series": str(contents.folder),
        "report": str(contents.folder / "report.html"),
        "verdict": contents.headline,
        "missed": _lost(contents),
        "metric": metric,
        "seeds": list(contents.facts.seeds),
        "seeds_draw": drawn_by_seeds(contents.folder, contents.facts),
        "expected_at_a_new_hospital": None if expected is None else _finite(asdict(expected)),
        "measured": [_finite(asdict(row)) for row in rows],
        "spread_over_seeds": [_finite(asdict(one)) for one in spreads(rows)] if several else [],
        "runs": {path.name: str(path) for path in sorted((contents.folder / "runs").iterdir())},
    }


def _finite(content: dict[str, object]) -> dict[str, object]:
    """Return a record with null for what is not a number, as JSON has no NaN."""
    return {key: _or_null(value) for key, value in content.items()}


def _or_null(value: object) -> object:
    if isinstance(value, tuple):
        return [_or_null(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _farewell(out: Path) -> str:
    if not ((out / "series.json").exists() or (out / "harmonised" / "series.json").exists()):
        return "Stopped before the first round; nothing was written."
    again = f"wardround simulate --resume {shlex.quote(str(out))}"
    return f"Stopped. What is done is kept in {out}; go on with: {again}"
