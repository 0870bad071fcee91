"""``wardround runs withdraw | withdrawals``: who asked to leave, and a run without them."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.common.runtime.printable import word
from wardround.server.cli.operators import HERE, Identity, Server

if TYPE_CHECKING:
    from wardround.server.sites.withdrawals_told import (
        WithdrawalAsked,
        WithdrawalPlanned,
        Withdrawals,
    )

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name.", show_default=False)]


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
    server: Server = HERE,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Repeat a run without a site, from the last commit before its first number came in.

    It is said first what is kept, what is repeated, and what that costs. Then the run's model is
    revoked, the run is stopped if it is not over, and the repeat is queued as a study of its own,
    which hospitals approve anew. The certificate lies in the repeat's folder once it has finished.

    Example: wardround runs withdraw my-study-1 --site north --server /srv/wardround
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.server.sites.withdrawals_told import WithdrawalAsked

    asked = WithdrawalAsked(run, site, patients)
    with _desk_at(server, identity) as desk:
        proposed = desk.plan_withdrawal(asked)
        if not as_json:
            write_lines("\n".join(proposed.words) + "\n")
        if plan:
            if as_json:
                _print_json(proposed)
            return
        if sys.stdin.isatty() and not yes and not proposed.run:
            question = "The run's model is revoked, and its rounds are repeated. Go on?"
            typer.confirm(question, abort=True)
        begun = desk.begin_withdrawal(asked)
    if as_json:
        _print_json(begun)
        return
    write_lines(
        f"Run {begun.run} repeats it: its sites approve study {begun.digest}\n"
        f"Watch it: wardround runs watch {begun.run} --server {word(server)}\n"
    )


def withdrawals(server: Server = HERE, identity: Identity = None, as_json: AsJson = False) -> None:
    """List what sites asked to leave, and no operator has begun yet, the oldest first.

    Example: wardround runs withdrawals --server /srv/wardround
    """
    from datetime import UTC, datetime

    from wardround.common.runtime.printable import write_lines

    with _desk_at(server, identity) as desk:
        found = desk.withdrawals().waiting
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in found]) + "\n")
        return
    for one in found:
        when = datetime.fromtimestamp(one.time, UTC)
        patients = one.without == "patients"
        what = f"patients of {one.site}" if patients else one.site
        write_lines(
            f"{what}, asked {when:%Y-%m-%d %H:%M} UTC\n"
            f"  wardround runs withdraw {one.run} --site {word(one.site)}"
            f"{' --patients' * patients} --server {word(server)}\n"
        )
    if not found:
        sys.stdout.write("Nobody asks to leave.\n")


class _Desk(Protocol):
    """Who answers: the server folder on this machine, or a server that runs."""

    def withdrawals(self) -> "Withdrawals": ...
    def plan_withdrawal(self, asked: "WithdrawalAsked") -> "WithdrawalPlanned": ...
    def begin_withdrawal(self, asked: "WithdrawalAsked") -> "WithdrawalPlanned": ...


@dataclass(frozen=True, slots=True)
class _OwnFolder:
    """A server folder on this machine, whether its server runs or not."""

    folder: Path

    def withdrawals(self) -> "Withdrawals":
        from wardround.server.scheduling.leaving import waiting

        return waiting(self.folder)

    def plan_withdrawal(self, asked: "WithdrawalAsked") -> "WithdrawalPlanned":
        from wardround.server.scheduling.leaving import plan

        return plan(self.folder, asked)

    def begin_withdrawal(self, asked: "WithdrawalAsked") -> "WithdrawalPlanned":
        from wardround.server.scheduling.leaving import begin

        return begin(self.folder, asked)


@contextmanager
def _desk_at(server: str, identity: Path | None) -> Iterator[_Desk]:
    from wardround.server.cli.operators import line_to
    from wardround.server.settings import SERVER_FILE, open_server

    if (Path(server) / SERVER_FILE).exists():
        yield _OwnFolder(open_server(Path(server)).folder)
        return
    with line_to(server, identity) as line:
        yield line


def _print_json(planned: "WithdrawalPlanned") -> None:
    sys.stdout.write(json.dumps(asdict(planned)) + "\n")
