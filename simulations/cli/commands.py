"""``wardround simulate | split | data | report | attack | stress``: the researcher's commands."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Public data sets, ready to be split into sites.", no_args_is_help=True)
federation_app = typer.Typer(help="A server and its sites on this machine.", no_args_is_help=True)

StudyName = Annotated[
    str,
    typer.Argument(metavar="[STUDY|NAME]", help="A study file, or the name of a built-in study."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the data sets (else WARDROUND_DATA).", show_default=False),
]
Sites = Annotated[int | None, typer.Option(help="How many hospitals.", show_default=False)]
SplitRule = Annotated[
    str | None,
    typer.Option("--split", help="natural, iid, dirichlet, quantity, one-large or classes."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, split and order.")]
Assigned = Annotated[Path | None, typer.Option(help="A saved split (assignment.csv) to use again.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. training.batch_size=16."),
]
Privacy = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Protect each patient: epsilon=8, or more keys of a study's [privacy].",
        show_default=False,
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder to write; must be new.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave unreadable images out, and say so.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Engine ray: a running cluster, else one is started.", show_default=False),
]
RayCpus = Annotated[float, typer.Option(help="Engine ray: CPUs of one site's work.")]
RayGpus = Annotated[
    float | None,
    typer.Option(help="Engine ray: GPUs of one site's work, e.g. 0.25.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_commands(app: typer.Typer) -> None:
    """Add the researcher's commands to the front door."""
    app.command()(simulate)
    app.command()(split)
    app.command()(report)
    app.command()(evaluate)
    app.command()(sweep)
    app.command()(attack)
    app.command()(stress)
    app.command("explain-predictions")(explain_predictions)
    app.add_typer(data_app, name="data")
    app.add_typer(federation_app, name="federation")


def simulate(  # noqa: PLR0913 # one argument an option of the command line
    study: StudyName = "brain-tissue",
    sites: Sites = None,
    split: SplitRule = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.")] = None,
    seed: Seed = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, in-process, pool or ray.")] = "auto",
    workers: Annotated[
        int, typer.Option(help="Worker processes; 0 takes as many as cores or GPUs.", min=0)
    ] = 0,
    threads: Annotated[
        int, typer.Option(help="CPU threads of each process; 0 shares the cores.", min=0)
    ] = 0,
    ray_address: RayAddress = None,
    ray_cpus_per_site: RayCpus = 1.0,
    ray_gpus_per_site: RayGpus = None,
    data_root: DataRoot = None,
    assignment: Assigned = None,
    changes: Changes = None,
    privacy: Privacy = None,
    out: Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Go on with the run in this folder, which was stopped."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option(help="Train each site alone, and pooled, beside the federation.")
    ] = True,
    leave_one_site_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-site-out",
            help="Train without each hospital once, and test on it: what may a new one expect?",
        ),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Run the study with each of these seeds, and say how far they differ.",
            show_default=False,
        ),
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a study out: split public data into hospitals, train, compare, report.

    Example: wardround simulate pneumonia-xray --data-root ~/data --sites 4 --out runs/xray
    """
    from wardround.simulations.cli.simulate import Options, run_simulation

    options = Options(
        study=study,
        sites=sites,
        split=split,
        rounds=rounds,
        seed=seed,
        device=device,
        engine=engine,
        workers=workers,
        threads=threads,
        ray=(ray_address, ray_cpus_per_site, ray_gpus_per_site),
        data_root=data_root,
        assignment=assignment,
        changes=tuple(changes or ()),
        privacy=privacy,
        out=out,
        resume=resume,
        compare=compare,
        leave_one_site_out=leave_one_site_out,
        seeds=seeds,
        skip_unreadable=skip_unreadable,
        quiet=quiet,
        as_json=as_json,
    )
    raise typer.Exit(run_simulation(options))


@federation_app.command("try")
def try_federation(  # noqa: PLR0913 # one argument an option of the command line
    study: StudyName = "brain-tissue",
    sites: Sites = None,
    split: SplitRule = None,
    rounds: Annotated[int, typer.Option(help="How many rounds; a try needs few.")] = 3,
    seed: Seed = None,
    threads: Annotated[
        int, typer.Option(help="CPU threads of each site; 0 shares the cores.", min=0)
    ] = 0,
    data_root: DataRoot = None,
    changes: Changes = None,
    out: Out = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a real federation: a server and sites as processes of this machine, joined over TLS.

    Everything that is started is ended: at the end, at Ctrl-C, and if something fails.

    Example: wardround federation try --sites 3
    """
    from wardround.simulations.cli.federation import run_try
    from wardround.simulations.cli.simulate import Options

    options = Options(
        study=study,
        sites=sites,
        split=split,
        rounds=rounds,
        seed=seed,
        threads=threads,
        data_root=data_root,
        changes=tuple(changes or ()),
        out=out,
        quiet=quiet,
        as_json=as_json,
    )
    raise typer.Exit(run_try(options))


def split(  # noqa: PLR0913 # one argument an option of the command line
    study: StudyName = "brain-tissue",
    sites: Sites = None,
    rule: SplitRule = None,
    seed: Seed = None,
    data_root: DataRoot = None,
    assignment: Assigned = None,
    changes: Changes = None,
    out: Out = None,
    skip_unreadable: SkipUnreadable = False,
    as_json: AsJson = False,
) -> None:
    """Split a data set into site folders, and show who holds what, without training.

    Example: wardround split pneumonia-xray --split dirichlet --sites 8 --out runs/split
    """
    from wardround.simulations.cli.simulate import Options, run_split

    options = Options(
        study=study,
        sites=sites,
        split=rule,
        seed=seed,
        data_root=data_root,
        assignment=assignment,
        changes=tuple(changes or ()),
        out=out,
        skip_unreadable=skip_unreadable,
        as_json=as_json,
    )
    run_split(options)


def plan(  # noqa: PLR0913 # one argument an option of the command line
    study: Annotated[
        str,
        typer.Argument(help="A study file, or the name of a built-in study.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The planned study; must be new.")] = Path(
        "planned.toml"
    ),
    sites: Sites = None,
    rule: SplitRule = None,
    seed: Seed = None,
    smallest_cell: Annotated[
        int, typer.Option(help="Simulated sites leave out cells of fewer patients.", min=1)
    ] = 1,
    data_root: DataRoot = None,
    assignment: Assigned = None,
    changes: Changes = None,
    skip_unreadable: SkipUnreadable = False,
    server: Annotated[
        str | None,
        typer.Option(
            help="Ask this server's sites: its folder, or HOST:PORT.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="An operator's folder, for HOST:PORT.", show_default=False)
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Whom the server asks; may be given several times.", show_default=False),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="The server's run that asked, once it is over.", show_default=False),
    ] = None,
) -> None:
    """Plan spacing, patch, batch, depth, intensity and class weights from sites' statistics.

    Sites send histograms of their training data, and nothing of a patient. By default the sites are
    simulated; with --server a study is handed in that asks real ones.

    Example: wardround study plan hippocampus --sites 4 --out planned.toml
    """
    from wardround.simulations.cli.plan import PlanOptions, run_plan
    from wardround.simulations.cli.simulate import Options

    simulated = Options(
        study=study,
        sites=sites,
        split=rule,
        seed=seed,
        data_root=data_root,
        assignment=assignment,
        changes=tuple(changes or ()),
        skip_unreadable=skip_unreadable,
    )
    run_plan(PlanOptions(simulated, out, smallest_cell, server, identity, tuple(site or ()), run))


def sweep(  # noqa: PLR0913 # one argument an option of the command line
    study: Annotated[
        str,
        typer.Argument(
            metavar="[STUDY|NAME]",
            help="A study file, or the name of a built-in study.",
            show_default=False,
        ),
    ] = "",
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="KEY=VALUES",
            help="What to vary: training.learning_rate=1e-4..1e-1:log, training.batch_size=8,16.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="How many trials; 20 if not given.", min=1)
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What scores a trial; the study's metric if not given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the search; the study keeps its own.", min=0)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, in-process, pool or ray.")] = "auto",
    threads: Annotated[
        int, typer.Option(help="CPU threads of each process; 0 shares the cores.", min=0)
    ] = 0,
    data_root: DataRoot = None,
    changes: Changes = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with a sweep that was stopped.")
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search for good values: short federations, scored on all sites' validation patients.

    No trial sees the test patients. Tuning on hospitals' own patients would cost privacy of its
    own in a private study: tune on public data, then keep the values fixed.

    Example: wardround sweep pneumonia-xray --param training.learning_rate=1e-4..1e-1:log
    --param training.batch_size=16,32,64 --trials 20 --out runs/sweep
    """
    from wardround.simulations.cli.simulate import Options
    from wardround.simulations.cli.sweep import SweepOptions, run_sweep

    run = Options(
        study=study,
        device=device,
        engine=engine,
        threads=threads,
        data_root=data_root,
        changes=tuple(changes or ()),
        out=out,
        resume=resume,
        skip_unreadable=skip_unreadable,
        quiet=quiet,
        as_json=as_json,
    )
    options = SweepOptions(run, tuple(parameters or ()), trials, metric, seed)
    raise typer.Exit(run_sweep(options))


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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Test a finished model at a hospital that took no part; nothing is written at the hospital.

    Example: wardround evaluate runs/first --site ~/hospital --out runs/first-at-hospital
    """
    from wardround.simulations.cli.evaluate import EvaluateOptions, run_evaluation

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
    from wardround.simulations.cli.stress import StressOptions, run_stress

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
    from wardround.simulations.cli.explain import run_explanation
    from wardround.simulations.experiment.testing.explained.explained_run import ExplanationRequest

    run_explanation(ExplanationRequest(run, method, cases, site, model, masks), as_json)


@data_app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List the data sets, with task and licence.

    Example: wardround data list
    """
    from dataclasses import asdict

    from wardround.simulations.datasets.catalogue import describe_datasets

    summaries = describe_datasets()
    if as_json:
        sys.stdout.write(json.dumps([asdict(s) for s in summaries], indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it is", "task", "licence")
    for summary in summaries:
        table.add_row(summary.name, summary.title, summary.task, summary.licence)
    Console().print(table)


@data_app.command("show")
def show_data(
    name: Annotated[
        str,
        typer.Argument(help="A data set, or a study whose data set is shown.", show_default=False),
    ],
) -> None:
    """Show everything known about a data set: licence, citation, options.

    Example: wardround data show ham10000
    """
    from rich.console import Console
    from rich.table import Table

    from wardround.simulations.datasets.catalogue import DATASETS, dataset_facts

    table = Table(show_header=False, box=None)
    for key, value in dataset_facts(name if name in DATASETS else _data_of(name)).items():
        table.add_row(key, value)
    Console().print(table)


def _data_of(study: str) -> str:
    """Return the data set of a study; the name itself where it is no study's either."""
    from wardround.common.errors import InputError, known_names
    from wardround.simulations.datasets.catalogue import DATASETS
    from wardround.simulations.studies import built_in_names, find_study

    if study in built_in_names() or Path(study).is_file():
        return find_study(study).simulation.data
    names = {*DATASETS, *built_in_names()}
    raise InputError(known_names("data set or study", study, names))


@data_app.command("get")
def get_data(
    study: Annotated[str, typer.Argument(help="A study file or built-in study.")],
    data_root: DataRoot = None,
    changes: Changes = None,
) -> None:
    """Fetch (or find) the data set of a study and check that it serves it.

    Example: wardround data get pneumonia-xray
    """
    from wardround.simulations.cli.simulate import Options, run_get

    run_get(Options(study=study, data_root=data_root, changes=tuple(changes or ())))
