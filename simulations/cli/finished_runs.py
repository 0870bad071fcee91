"""Commands on a run: its page, report and trackers, attacks, tests elsewhere, explanations."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson, Device
from wardround.simulations.cli.finished.withdraw import withdraw
from wardround.simulations.cli.options import Out, UserFilePath


def add_commands_on_runs(app: typer.Typer) -> None:
    """Add the commands on a finished run to the front door."""
    app.command()(watch)
    app.command()(report)
    app.command()(evaluate)
    app.command()(attack)
    app.command()(stress)
    app.command("explain-predictions")(explain_predictions)
    app.command()(withdraw)
    app.command()(track)


def watch(
    run: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A run folder, or a series.", show_default=False),
    ],
    port: Annotated[int, typer.Option(help="Of this machine; 0 takes a free one.")] = 0,
) -> None:
    """Serve the page of a run to this machine's browsers, until Ctrl-C; nothing is changed.

    The run may be at work, in another terminal or in a job of a cluster's, or long finished.

    Example: wardround watch runs/first
    """
    from wardround.common.errors import InputError
    from wardround.simulations.report.live.beside import watch_until_stopped

    if not run.is_dir():
        msg = f"{run} is no folder: give the one that 'wardround simulate --out' writes."
        raise InputError(msg)

    def tell(link: str) -> None:
        sys.stdout.write(f"Watch it at {link}\nCtrl-C ends the page.\n")
        sys.stdout.flush()

    watch_until_stopped(run, port, tell)


def report(
    run: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run folder.", show_default=False)
    ],
    kind: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="html, pdf, json or markdown.")
    ] = "html",
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; by default in the run folder.", show_default=False),
    ] = None,
) -> None:
    """Write the report of a run anew, as a page, a PDF, data or Markdown, with its documents.

    The model card and the data sheet are written into the run folder.

    Example: wardround report runs/first --format pdf --out first.pdf
    """
    from wardround.common.errors import InputError
    from wardround.simulations.experiment.series.series import is_series, write_series_results
    from wardround.simulations.experiment.simulate import write_what_is_left
    from wardround.simulations.report import write_report

    if is_series(run):
        sys.stdout.write(f"{write_series_results(run)}\n")
        return
    if not (run / "run.json").exists():
        msg = f"{run} holds no run: give the folder that 'wardround simulate --out' wrote."
        raise InputError(msg)
    write_what_is_left(run)
    sys.stdout.write(f"{write_report(run, kind, out)}\n")


def evaluate(  # noqa: PLR0913 # one argument an option of the command line
    run: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A run folder, or a model folder."),
    ],
    site: Annotated[
        Path,
        typer.Option(help="Whose patients: a site folder, or a manifest.", show_default=False),
    ],
    model: Annotated[str, typer.Option(help="Of a run folder: which of its models.")] = "federated",
    chosen: Annotated[
        str,
        typer.Option(
            "--split", help="all, or a part of the column split: train, validation, test."
        ),
    ] = "all",
    subgroups: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="By what patients are grouped, else what the model's study says.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Test a finished model at a hospital that took no part; nothing is written at the hospital.

    Example: wardround evaluate runs/first --site ~/hospital --out runs/first-at-hospital
    """
    from wardround.simulations.cli.finished.evaluate import EvaluateOptions, run_evaluation

    run_evaluation(EvaluateOptions(run, site, model, chosen, subgroups, device, out, as_json))


def attack(  # noqa: PLR0913 # one argument an option of the command line
    run: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run folder.", show_default=False)
    ],
    site: Annotated[
        str | None, typer.Option(help="Whose patients; the first site's if not given.")
    ] = None,
    patients: Annotated[int, typer.Option(help="How many patients.", min=1, max=20)] = 4,
    seconds: Annotated[float, typer.Option(help="Of each search for an image.", min=0.1)] = 15.0,
    canaries: Annotated[
        int, typer.Option(help="Planted patients of the audit; 0 leaves it out.", min=0)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the choice and the searches.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a curious server would have seen of a run, without and with protection.

    For simulated runs only; the pictures and numbers join the run's report.

    Example: wardround attack runs/first
    """
    from wardround.simulations.cli.attack import AttackOptions, run_attack

    run_attack(AttackOptions(run, site, patients, seconds, canaries, seed, as_json))


def stress(  # noqa: PLR0913 # one argument an option of the command line
    run: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run folder.", show_default=False)
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A corruption, may be given several times; else those of the kind of image.",
        ),
    ] = None,
    severities: Annotated[str, typer.Option(help="How bad, from 1 to 5.")] = "1,2,3,4,5",
    corruptions: Annotated[bool, typer.Option(help="Make images worse.")] = True,
    attacks: Annotated[
        bool, typer.Option("--attacks", help="Attack the images too: FGSM, PGD, transfer.")
    ] = False,
    epsilons: Annotated[
        str, typer.Option(help="Attacks: how far a grey value goes, in 255ths of the range.")
    ] = "1,2,4,8",
    steps: Annotated[int, typer.Option(help="Attacks: steps of PGD.", min=1, max=1000)] = 20,
    restarts: Annotated[int, typer.Option(help="Attacks: starts of PGD.", min=1, max=100)] = 3,
    model: Annotated[
        str, typer.Option(help="Which model: federated, pooled, local (each site's own).")
    ] = "federated",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What it is compared with; local where the run has it. none: nothing.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Whose patients; all sites' if not given.")
    ] = None,
    max_cases: Annotated[
        int | None, typer.Option(help="Most test images a site; all if not given.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and starts.", min=0)] = 0,
    workers: Annotated[
        int, typer.Option(help="Threads; 0 takes as many as there are cores.", min=0, max=256)
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Test a run's model on test images that got worse, or that somebody changed on purpose.

    For simulated runs only; writes corruptions.csv and adversarial.csv, and renews the report.

    Example: wardround stress runs/first --attacks
    """
    from wardround.simulations.cli.finished.stress import StressOptions, run_stress

    options = StressOptions(
        run,
        model=model,
        baseline=baseline,
        site=site,
        only=tuple(only or ()),
        severities=severities,
        corruptions=corruptions,
        attacks=attacks,
        epsilons=epsilons,
        steps=steps,
        restarts=restarts,
        max_cases=max_cases,
        seed=seed,
        workers=workers,
        as_json=as_json,
    )
    run_stress(options)


def explain_predictions(  # noqa: PLR0913 # one argument an option of the command line
    run: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run folder.", show_default=False)
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="Which method; the usual one of the study if not given.",
            show_default=False,
        ),
    ] = None,
    cases: Annotated[
        int, typer.Option(help="Test examinations of each site; 0 takes all.", min=0)
    ] = 8,
    site: Annotated[
        str | None, typer.Option(help="Only this site's examinations.", show_default=False)
    ] = None,
    model: Annotated[
        str, typer.Option(help="Whose predictions: federated, pooled or local-SITE.")
    ] = "federated",
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|COLUMN",
            help="Where the lesions are: a folder of masks named as the images, or a column.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show where a run's model looked, each map with the checks that say whether to believe it.

    Maps and scores stay in the run folder, and join the run's report.

    Example: wardround explain-predictions runs/first --method grad-cam
    """
    from wardround.simulations.cli.finished.explain import run_explanation
    from wardround.simulations.experiment.testing.explained.explained_run import ExplanationRequest

    run_explanation(ExplanationRequest(run, method, cases, site, model, masks), as_json)


def track(
    run: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A run folder, or a series.", show_default=False),
    ],
    user_file: UserFilePath = None,
) -> None:
    """Tell your trackers what they do not have yet of a run; one that goes on is followed.

    What they have already is not written twice.

    Example: wardround track runs/first --track trackers.toml
    """
    from wardround.common.errors import InputError, RunError
    from wardround.common.monitoring.trackers.tracking import Tracking, quieten_packages
    from wardround.common.monitoring.trackers.user_file import require_trackers
    from wardround.simulations.experiment.tracking.course import runs_in
    from wardround.simulations.experiment.tracking.follower import follow

    table = require_trackers(user_file)
    if not runs_in(run):
        msg = f"{run} holds no run: give the folder that 'wardround simulate --out' wrote."
        raise InputError(msg)
    with quieten_packages():
        problems = follow(run, Tracking(table))
    if problems:
        raise RunError(" ".join(problems))
    sys.stdout.write("Told.\n")
