"""``wardround stress FOLDER``: a run's models on images that got worse, or were attacked."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.simulations.run_files.folder import FEDERATED, working_on
from wardround.simulations.run_files.stress import (
    ADVERSARIAL,
    CORRUPTIONS,
    EXAMPLES,
    LOCAL,
    AttackRow,
    CorruptionRow,
    read_attacks,
    read_corruptions,
    write_examples,
)

if TYPE_CHECKING:
    from wardround.simulations.experiment.testing.stress.finished import FinishedRun

NO_BASELINE = "none"
_SEVERITIES = (1, 2, 3, 4, 5)
_LARGEST_EPSILON = 255.0


@dataclass(frozen=True, slots=True)
class StressOptions:
    """The words of the command line.

    Attributes:
        only: Corruptions; none takes those of the study's kind of image.
        severities: Of 1 to 5, with commas.
        baseline: The model that errors are compared with; None takes the sites' own where the run
            left them, "none" compares with nothing.
        corruptions: Whether images are made worse.
        attacks: Whether images are attacked.
        epsilons: In 255ths of the image's range, with commas.
        workers: Threads; 0 takes as many as there are cores.
    """

    run: Path
    model: str = FEDERATED
    baseline: str | None = None
    site: str | None = None
    only: tuple[str, ...] = ()
    severities: str = "1,2,3,4,5"
    corruptions: bool = True
    attacks: bool = False
    epsilons: str = "1,2,4,8"
    steps: int = 20
    restarts: int = 3
    max_cases: int | None = None
    seed: int = 0
    workers: int = 0
    as_json: bool = False


def run_stress(options: StressOptions) -> None:
    """Test a finished run's models, write the tables, renew the report and print a summary.

    Raises:
        InputError: The folder is no finished run of an image study, or an option does not fit.
    """
    from wardround.simulations.experiment.testing.stress.finished import open_finished_run
    from wardround.simulations.report import write_report

    severities = _severities(options.severities)
    epsilons = _epsilons(options.epsilons)
    _check(options)
    run = open_finished_run(options.run)
    models = _models(run, options)
    run.chosen_sites(options.site)
    with working_on(options.run):
        if options.corruptions:
            _corrupt(run, options, models, severities)
        if options.attacks:
            _attack(run, options, models[:1], epsilons)
        report = write_report(options.run)
    if options.as_json:
        content = {
            "corruptions": [_finite(row) for row in read_corruptions(options.run)],
            "attacks": [_finite(row) for row in read_attacks(options.run)],
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        _print(options, report)


def _check(options: StressOptions) -> None:
    """Check words that do not depend on the run.

    Raises:
        InputError: One does not fit.
    """
    from wardround.client.data.corruptions.registry import check_corruptions

    check_corruptions(options.only)
    if not (options.corruptions or options.attacks):
        msg = "--no-corruptions without --attacks leaves nothing to do: add --attacks."
        raise InputError(msg)


def _severities(text: str) -> tuple[int, ...]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not set(found) <= set(_SEVERITIES):
        msg = f"--severities {text!r} must be numbers from 1 to 5 with commas, as in 1,3,5."
        raise InputError(msg)
    return tuple(found)


def _epsilons(text: str) -> tuple[float, ...]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < one <= _LARGEST_EPSILON for one in found):
        msg = (
            f"--epsilons {text!r} must be numbers above 0 and up to 255 with commas, in 255ths of "
            "the image's range, as in 1,2,4,8."
        )
        raise InputError(msg)
    return tuple(found)


def _models(run: "FinishedRun", options: StressOptions) -> tuple[str, ...]:
    run.check_model(options.model)
    baseline = options.baseline
    if baseline is None:
        baseline = LOCAL if LOCAL in run.models else NO_BASELINE
    if baseline != NO_BASELINE:
        run.check_model(baseline)
    return tuple(dict.fromkeys((options.model, *((baseline,) if baseline != NO_BASELINE else ()))))


def _corrupt(
    run: "FinishedRun",
    options: StressOptions,
    models: tuple[str, ...],
    severities: tuple[int, ...],
) -> None:
    from wardround.client.data.corruptions.registry import fitting_corruptions
    from wardround.common.runtime.system.limits import cores
    from wardround.simulations.experiment.testing.stress.corrupted import (
        CorruptionPlan,
        corruption_examples,
        corruption_rows,
    )

    names = tuple(dict.fromkeys(options.only)) or fitting_corruptions(run.study.data)
    workers = options.workers or cores()
    plan = CorruptionPlan(models, names, severities, options.max_cases, options.seed, workers)
    sites = run.chosen_sites(options.site)
    rows = corruption_rows(run, sites, plan, _tell)
    _require_patients(rows)
    examples = corruption_examples(run, sites, plan)
    write_table(options.run / CORRUPTIONS, rows, CorruptionRow)
    (options.run / EXAMPLES).unlink(missing_ok=True)
    if examples is not None:
        write_examples(options.run, examples)


def _attack(
    run: "FinishedRun",
    options: StressOptions,
    models: tuple[str, ...],
    epsilons: tuple[float, ...],
) -> None:
    from wardround.simulations.experiment.testing.stress.attacked import AttackPlan, attack_rows

    plan = AttackPlan(
        models,
        epsilons,
        options.steps,
        options.restarts,
        max_cases=options.max_cases,
        seed=options.seed,
    )
    rows = attack_rows(run, run.chosen_sites(options.site), plan, _tell)
    _require_patients(rows)
    write_table(options.run / ADVERSARIAL, rows, AttackRow)


def _require_patients(rows: Sequence[object]) -> None:
    if not rows:
        msg = "no site that was asked about has test patients: choose another --site."
        raise InputError(msg)


def _tell(said: str) -> None:
    sys.stderr.write(f"{said}\n")
    sys.stderr.flush()


def _finite(row: CorruptionRow | AttackRow) -> dict[str, object]:
    """Return a row for JSON, which knows no NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(row).items()
    }


def _print(options: StressOptions, report: Path) -> None:
    from rich.console import Console

    from wardround.simulations.report.contents import read_contents
    from wardround.simulations.report.sections.adversarial import adversarial_section
    from wardround.simulations.report.sections.corruptions import corruptions_section

    console, contents = Console(), read_contents(options.run)
    made = (corruptions_section(contents), adversarial_section(contents))
    for section in made:
        if section is not None:
            for sentence in section.answer:
                console.print(sentence, markup=False, soft_wrap=True)
    console.print(f"Report: {report}", markup=False, soft_wrap=True)
