"""``wardround study submit``, ``wardround runs``, ``wardround sites``: the operator's commands."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.common.runtime.printable import word, write_lines

if TYPE_CHECKING:
    from wardround.server.operators.client import ServerLine
    from wardround.server.operators.messages import RunSummary

runs_app = typer.Typer(
    help="The runs of a server: each is one execution of a study.",
    no_args_is_help=True,
    suggest_commands=False,
)
sites_app = typer.Typer(
    help="Which sites a server knows.", no_args_is_help=True, suggest_commands=False
)

Server = Annotated[
    str,
    typer.Option(
        "--server", envvar="WARDROUND_SERVER", help="The server folder, or HOST:PORT of a server."
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        envvar="WARDROUND_OPERATOR",
        help="An operator's folder, for HOST:PORT.",
        show_default=False,
    ),
]
ServerOfRun = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="WARDROUND_SERVER",
        help="The server folder, or HOST:PORT of a server, that the run is on.",
        show_default=False,
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name.", show_default=False)]
HERE = "."
_ENDED_OTHERWISE = 3  # beside 1 (failed) and 2 (refused): a script can tell them apart


def submit(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)],
    server: Server = HERE,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Whom it is for; may be given several times.", show_default=False),
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Put a study in a server's queue; hospitals see it as soon as it is its turn.

    Example: wardround study submit study.toml --server /srv/wardround
    """
    from wardround.common.study.template import refused_at_first
    from wardround.common.study.typed import read_study
    from wardround.server.operators.messages import Submission

    loaded = read_study(context, study)
    text = loaded.to_toml()
    with line_to(server, identity) as line:
        done = line.submit(Submission(text, "toml", tuple(site or ())))
    if as_json:
        _print_json(done)
        return
    turn = f"{done.ahead} before it" if done.ahead else "it is next"
    notes = "".join(f"Note: {note}\n" for note in refused_at_first(loaded))
    write_lines(
        f"{done.study} is run {done.run}; {turn}.\ndigest {done.digest}\n{notes}"
        f"Watch it: wardround runs watch {done.run} --server {word(server)}\n"
    )


@runs_app.command("list")
def list_runs(server: Server = HERE, identity: Identity = None, as_json: AsJson = False) -> None:
    """List all runs of a server, the oldest first.

    Example: wardround runs list --server /srv/wardround
    """
    from wardround.server.cli.operator_tables import runs_table, show

    with line_to(server, identity) as line:
        found = line.runs()
    if as_json:
        sys.stdout.write(json.dumps([asdict(run) for run in found.runs]) + "\n")
    else:
        show(runs_table(found.runs))


@runs_app.command("show")
def show_run(
    run: RunName, server: Server = HERE, identity: Identity = None, as_json: AsJson = False
) -> None:
    """Show a run: how it stands, its rounds, and who refused what.

    Example: wardround runs show my-study-1 --server /srv/wardround
    """
    from wardround.server.cli.operator_tables import run_page, show

    with line_to(server, identity) as line:
        found = line.show(run)
    if as_json:
        _print_json(found)
    else:
        show(*run_page(found))
        if found.canary is not None:
            from wardround.server.cli.canary import print_canary

            print_canary(found)


@runs_app.command()
def report(
    run: RunName,
    server: Server = HERE,
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write; RUN.html by default.", show_default=False),
    ] = None,
    identity: Identity = None,
) -> None:
    """Write a page about a run: its course, who took part and why not, cost, privacy.

    Example: wardround runs report my-study-1 --server /srv/wardround --out report.html
    """
    from wardround.server.operators.report import write_report

    with line_to(server, identity) as line:
        found = line.record(run)
    place = out or Path(f"{found.details.summary.run}.html")
    write_report(found, place)
    sys.stdout.write(f"{place}\n")


@runs_app.command()
def model(
    run: RunName,
    server: Server = HERE,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder, which must be new; RUN by default.", show_default=False),
    ] = None,
    identity: Identity = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="Sign it with the key in this folder; one is made where there is none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Fetch the model that a finished run keeps, as a model folder.

    It holds what all sites share; the digest of that is compared with the run's log.

    Example: wardround runs model my-study-1 --server /srv/wardround --out model --keys signing
    """
    from wardround.server.operators.run_model import write_model

    with line_to(server, identity) as line:
        record = line.record(run)
        place = out or Path(record.details.summary.run)
        card = write_model(line.model(run), record, place)
    if keys is not None:
        from wardround.common.models.model_folder import sign_model_folder
        from wardround.common.security.signing_key import open_key

        sign_model_folder(place, open_key(keys))
    write_lines(f"{card}\n{place}\n")


@runs_app.command()
def watch(
    run: RunName, server: Server = HERE, identity: Identity = None, as_json: AsJson = False
) -> None:
    """Follow a run until it ends; 0 if it finished, 3 if it failed or was stopped.

    With --json each line is one event.

    Example: wardround runs watch my-study-1 --server /srv/wardround
    """
    from wardround.server.operators.run_events import event_words

    state = ""
    with line_to(server, identity) as line:
        for event in line.watch(run):
            state = event.state
            text = json.dumps(asdict(event)) if as_json else event_words(event)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    if state != "finished":
        raise typer.Exit(_ENDED_OTHERWISE)


@runs_app.command()
def page(
    server: Server = HERE,
    identity: Identity = None,
    port: Annotated[int, typer.Option(help="Of this machine; 0 takes a free one.")] = 0,
    actions: Annotated[
        bool,
        typer.Option(
            "--actions",
            help="Let the page submit studies, stop and resume runs; and invite sites, where "
            "--server is the server's folder.",
        ),
    ] = False,
) -> None:
    """Show a server's runs and sites in a browser on this machine, as they are, until Ctrl-C.

    Whoever has the link that is printed may read the page, and with --actions act on it.

    Example: wardround runs page --server /srv/wardround
    """
    from wardround.server.operators.page.desk import desk_page

    def tell(link: str) -> None:
        sys.stdout.write(f"{link}\nOpen this in a browser on this machine; Ctrl-C ends it.\n")
        sys.stdout.flush()

    with line_to(server, identity) as line:
        desk_page(line, port, actions, tell)


@runs_app.command()
def stop(
    run: RunName, server: Server = HERE, identity: Identity = None, as_json: AsJson = False
) -> None:
    """Stop a run; it keeps its last commit, from which it can be resumed.

    Example: wardround runs stop my-study-1 --server /srv/wardround
    """
    with line_to(server, identity) as line:
        _print_state(line.stop(run), as_json)


@runs_app.command()
def resume(
    run: RunName, server: Server = HERE, identity: Identity = None, as_json: AsJson = False
) -> None:
    """Queue a run again that was stopped or that failed; it goes on from its last commit.

    Example: wardround runs resume my-study-1 --server /srv/wardround
    """
    with line_to(server, identity) as line:
        _print_state(line.resume(run), as_json)


@sites_app.command("list")
def list_sites(server: Server = HERE, identity: Identity = None, as_json: AsJson = False) -> None:
    """List the sites that joined a server, their certificates, and when they were last seen.

    Example: wardround sites list --server /srv/wardround
    """
    from wardround.server.cli.operator_tables import show, sites_table

    with line_to(server, identity) as line:
        found = line.sites()
    if as_json:
        sys.stdout.write(json.dumps([asdict(site) for site in found.sites]) + "\n")
    else:
        show(sites_table(found.sites))


@contextmanager
def line_to(server: str, identity: Path | None) -> Iterator["ServerLine"]:
    """Open a line to a server, for one command."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what went wrong is said in a sentence
    from wardround.server.operators.client import server_at

    with server_at(server, identity) as line:
        yield line


def _print_state(summary: "RunSummary", as_json: bool) -> None:
    if as_json:
        _print_json(summary)
    else:
        write_lines(f"{summary.run} is {summary.state}.\n")


def _print_json(message: object) -> None:
    from wardround.server.operators.messages import to_content

    sys.stdout.write(json.dumps(to_content(message)) + "\n")
