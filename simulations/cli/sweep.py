"""What ``wardround sweep`` does once its words are read."""

import json
import math
import shlex
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import InputError
from wardround.simulations.cli.simulate import Options, resolve_study
from wardround.simulations.studies import find_study

if TYPE_CHECKING:
    from wardround.simulations.sweeps.folder import SweepContents, Trial

DEFAULT_TRIALS = 20  # more than Optuna's ten random ones, after which its sampler begins to learn


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The words of the command line; None leaves it to a default.

    Attributes:
        run: What it has in common with ``wardround simulate``.
    """

    run: Options
    parameters: tuple[str, ...] = ()
    trials: int | None = None
    metric: str | None = None
    seed: int | None = None


def run_sweep(options: SweepOptions) -> int:
    """Sweep, say how each trial went, print the table, and return the exit code."""
    from wardround.simulations.experiment.federation import Machine
    from wardround.simulations.sweeps.sweep import SweepRequest, resume_sweep, sweep

    run = options.run
    machine = Machine(run.device, run.engine, run.workers, run.threads)

    def tell(trial: "Trial", contents: "SweepContents") -> None:
        if not run.quiet and not run.as_json:
            with suppress(OSError):
                sys.stderr.write(f"{_line(trial, contents)}\n")

    if run.resume is not None:
        _check_alone(options)
    out = run.resume or _out(run)
    try:
        if run.resume is not None:
            contents = resume_sweep(out, options.trials, machine, tell)
        else:
            request = SweepRequest(
                study=resolve_study(run),
                out=out,
                parameters=options.parameters,
                trials=options.trials or DEFAULT_TRIALS,
                metric=options.metric,
                seed=options.seed or 0,
                machine=machine,
                data_root=run.data_root,
                skip_unreadable=run.skip_unreadable,
                command=("wardround", *sys.argv[1:]),
                own_rounds=find_study(run.study).federation.rounds,
            )
            contents = sweep(request, tell)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may have been closed
            sys.stderr.write(f"\n{_farewell(out)}\n")
        return 130
    _print(out, contents, run.as_json)
    return 0


def _out(run: Options) -> Path:
    if not run.study:
        msg = "say which study to sweep: wardround sweep STUDY --param KEY=LOW..HIGH"
        raise InputError(msg)
    if run.out is None:
        msg = "say where the sweep is kept: add --out DIR; a stopped sweep goes on from there."
        raise InputError(msg)
    return run.out


def _check_alone(options: SweepOptions) -> None:
    """Refuse what a resumed sweep would silently ignore.

    Raises:
        InputError: Something else than ``--trials`` is asked for beside ``--resume``.
    """
    run = options.run
    beside = {
        "a study": run.study,
        "--param": options.parameters,
        "--metric": options.metric,
        "--seed": options.seed is not None,
        "--data-root": run.data_root,
        "--set": run.changes,
        "--out": run.out,
        "--skip-unreadable": run.skip_unreadable,
    }
    given = [name for name, value in beside.items() if value]
    if given:
        msg = (
            f"--resume goes on with the sweep as it began, so {', '.join(given)} cannot be given: "
            "leave it out (--trials may be raised), or start a new sweep."
        )
        raise InputError(msg)


def _farewell(out: Path) -> str:
    if not (out / "sweep.json").exists():
        return "Stopped before the first trial; nothing was written."
    again = f"wardround sweep --resume {shlex.quote(str(out))}"
    return f"Stopped. The finished trials are kept in {out}; go on with: {again}"


def _line(trial: "Trial", contents: "SweepContents") -> str:
    from wardround.simulations.report.wording import metric_title, number
    from wardround.simulations.sweeps.folder import print_value

    metric, best = contents.facts.metric, contents.best
    drawn = " ".join(f"{key}={print_value(value)}" for key, value in trial.changes.items())
    score = f"{metric_title(metric)} {number(trial.value, metric)}"
    besides = "" if best is None else f", best {number(best.value, metric)}"
    reason = f": {trial.reason}" if trial.reason else ""
    of = f"trial {trial.number} of {contents.facts.trials}"
    return f"{of}: {score} ({trial.status}{besides}) {drawn}{reason}"


def _print(out: Path, contents: "SweepContents", as_json: bool) -> None:
    from wardround.simulations.sweeps.page import (
        explain,
        headline,
        next_command,
        table_row,
    )

    if as_json:
        sys.stdout.write(json.dumps(_as_json(out, contents), indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    keys = [parameter.key.rpartition(".")[2] for parameter in contents.parameters]
    table = Table("trial", contents.facts.metric, *keys, "status", "rounds", "seconds", "reason")
    for trial in contents.trials:
        is_best = contents.best is not None and trial.number == contents.best.number
        cells = table_row(trial, contents)
        table.add_row(str(trial.number), *cells, style="bold" if is_best else None)
    console.print(table)
    console.print(headline(contents), markup=False, style="bold")
    for sentence in explain(contents):
        console.print(sentence, markup=False)
    if command := next_command(out, contents):
        sys.stdout.write(f"Train and test it: {command}\n")
    sys.stdout.write(f"Report: {out / 'report.html'}\n")


def _as_json(out: Path, contents: "SweepContents") -> dict[str, object]:
    from wardround.simulations.sweeps.page import next_command

    rows = [
        asdict(t) | {"value": None if math.isnan(t.value) else t.value} for t in contents.trials
    ]
    best = contents.best
    return {
        "sweep": str(out),
        "report": str(out / "report.html"),
        "metric": contents.facts.metric,
        "trials": rows,
        "best": None if best is None else {"trial": best.number, "changes": best.changes},
        "next": next_command(out, contents),
    }
