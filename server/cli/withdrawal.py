"""``wardround runs withdraw | withdrawals``: who asked to leave, and a run without them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.printable import word

if TYPE_CHECKING:
    from wardround.server.scheduling.repeat import Proposed

ServerFolderOption = Annotated[
    Path,
    typer.Option("--server", envvar="WARDROUND_SERVER", help="The server folder, on its machine."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_withdrawal_commands(app: typer.Typer) -> None:
    """Add the commands to ``wardround runs``."""
    app.command()(withdraw)
    app.command()(withdrawals)


def withdraw(  # noqa: PLR0913 # one argument an option of the command line
    run: RunName,
    site: Annotated[str, typer.Option(help="The site that leaves.", show_default=False)],
    patients: Annotated[
        bool, typer.Option("--patients", help="Not the site leaves, but patients of it.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask in a terminal.")] = False,
    server: ServerFolderOption = Path(),
    as_json: AsJson = False,
) -> None:
    """Repeat a run without a site, from the last commit before its first number came in.

    It is said first what is kept, what is repeated, and what that costs. Then the run's model is
    revoked, the run is stopped if it is not over, and the repeat is queued as a study of its own,
    which hospitals approve anew. The certificate lies in the repeat's folder once it has finished.

    Example: wardround runs withdraw my-study-1 --site north --server /srv/wardround
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.server.scheduling.repeat import begin_repeat, propose
    from wardround.server.settings import open_server

    folder = open_server(server).folder
    proposed = propose(folder, run, site, "patients" if patients else "site")
    if not as_json:
        write_lines("\n".join(_plan_words(proposed)) + "\n")
    if plan:
        if as_json:
            _print_json(proposed, "")
        return
    if sys.stdin.isatty() and not yes and not proposed.begun:
        typer.confirm("The run's model is revoked, and its rounds are repeated. Go on?", abort=True)
    row = begin_repeat(folder, proposed)
    if as_json:
        _print_json(proposed, row.run, row.digest)
        return
    write_lines(
        f"Run {row.run} repeats it: its sites approve study {row.digest}\n"
        f"Watch it: wardround runs watch {row.run} --server {word(server)}\n"
    )


def withdrawals(server: ServerFolderOption = Path(), as_json: AsJson = False) -> None:
    """List what sites asked to leave, and no operator has begun yet, the oldest first.

    Example: wardround runs withdrawals --server /srv/wardround
    """
    from datetime import UTC, datetime

    from wardround.common.runtime.printable import write_lines
    from wardround.server.scheduling.repeat import open_requests
    from wardround.server.scheduling.store import all_runs
    from wardround.server.settings import open_server

    folder = open_server(server).folder
    found, rows = open_requests(folder), all_runs(folder)
    runs = {row.digest: row.run for row in rows}
    if as_json:
        said = [
            {
                "site": one.asked.site,
                "without": one.asked.without,
                "time": one.asked.time,
                "study": one.asked.study,
                "run": runs.get(one.asked.study, ""),
            }
            for one in found
        ]
        sys.stdout.write(json.dumps(said) + "\n")
        return
    for one in found:
        when = datetime.fromtimestamp(one.asked.time, UTC)
        patients = one.asked.without == "patients"
        what = f"patients of {one.asked.site}" if patients else one.asked.site
        run = runs.get(one.asked.study, "")
        write_lines(
            f"{what}, asked {when:%Y-%m-%d %H:%M} UTC\n"
            f"  wardround runs withdraw {run} --site {word(one.asked.site)}"
            f"{' --patients' * patients} --server {word(server)}\n"
        )
    if not found:
        sys.stdout.write("Nobody asks to leave.\n")


def _plan_words(proposed: "Proposed") -> list[str]:
    lines = list(proposed.plan.words())
    if proposed.begun:
        lines.append(f"It was begun before: run {proposed.begun}.")
    elif proposed.request is None:
        lines.append(f"{proposed.plan.site} has not asked for it: this is your own decision.")
    return lines


def _print_json(proposed: "Proposed", run: str, digest: str = "") -> None:
    said = {
        **asdict(proposed.plan),
        "asked": proposed.request is not None,
        "run": run or proposed.begun,
        "digest": digest,
    }
    sys.stdout.write(json.dumps(said) + "\n")
