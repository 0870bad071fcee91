"""``wardround simulate | split | sweep | federation``: the researcher's commands."""

from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson, Device, Quiet
from wardround.simulations.cli.data_commands import data_app
from wardround.simulations.cli.finished_runs import add_commands_on_runs
from wardround.simulations.cli.options import (
    Assigned,
    Changes,
    DataRoot,
    Out,
    Privacy,
    RayAddress,
    RayCpus,
    RayGpus,
    RecipeName,
    Seed,
    Sites,
    SkipUnreadable,
    SplitRule,
    StudyName,
    UserFilePath,
)

federation_app = typer.Typer(
    help="A server and its sites on this machine.", no_args_is_help=True, suggest_commands=False
)


def add_commands(app: typer.Typer) -> None:
    """Add the researcher's commands to the front door."""
    app.command()(simulate)
    app.command()(split)
    app.command()(sweep)
    add_commands_on_runs(app)
    app.add_typer(data_app, name="data")
    app.add_typer(federation_app, name="federation")


def simulate(  # noqa: PLR0913 # one argument an option of the command line
    study: StudyName = "brain-tissue",
    recipe: RecipeName = "default",
    sites: Sites = None,
    split: SplitRule = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.")] = None,
    seed: Seed = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="auto, in-process, pool, stacked or ray.")] = "auto",
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
        bool,
        typer.Option(
            help="Train each site alone, and pooled, to compare with the federated model."
        ),
    ] = True,
    leave_one_site_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-site-out",
            help="Train without each site once, and test on it: what may a new one expect?",
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
    also_unharmonised: Annotated[
        bool,
        typer.Option(
            "--also-unharmonised",
            help="With --leave-one-site-out: once more without data.harmonisation, side by side.",
        ),
    ] = False,
    skip_unreadable: SkipUnreadable = False,
    track: UserFilePath = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Serve a page to watch it on, to this machine's browsers."),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Try a study out: split public data into sites, train, compare, report.

    Example: wardround simulate pneumonia-xray --data-root ~/data --sites 4 --out runs/xray
    """
    from wardround.simulations.cli.simulate import Options, run_simulation

    options = Options(
        study=study,
        recipe=recipe,
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
        also_unharmonised=also_unharmonised,
        skip_unreadable=skip_unreadable,
        quiet=quiet,
        as_json=as_json,
        track=track,
        watch=watch,
    )
    raise typer.Exit(run_simulation(options))


@federation_app.command("try")
def try_federation(  # noqa: PLR0913 # one argument an option of the command line
    study: StudyName = "brain-tissue",
    recipe: RecipeName = "default",
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
    quiet: Quiet = False,
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
        recipe=recipe,
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
    recipe: RecipeName = "default",
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
        recipe=recipe,
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
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="auto, in-process, pool, stacked or ray.")] = "auto",
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
    quiet: Quiet = False,
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
