"""``wardround site start`` and what is asked of a running daemon; what a person approves."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.common.runtime.printable import word

if TYPE_CHECKING:
    from wardround.client.daemon.status import DaemonStatus

SiteArgument = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
SiteOption = Annotated[Path, typer.Option("--site", help="A site folder.", show_default=False)]
DigestArgument = Annotated[
    str,
    typer.Argument(help="A study's digest, or 16 or more of its first digits.", show_default=False),
]
_SHOWN = 16  # of a digest: as many as a decision takes
_STOP_SECONDS = 40.0  # shutdown.py gives the daemon 30 s: 20 for the work in hand, 10 for all else


def add_daemon_commands(site_app: typer.Typer) -> None:
    """Add the commands to ``wardround site``."""
    for command in (start, status, stop, pending, approve, reject):
        site_app.command()(command)


def start(
    site: SiteArgument,
    server: Annotated[
        str, typer.Option(help="host:port, instead of the server that the site has joined.")
    ] = "",
) -> None:
    """Serve a site folder until told to stop: dial out, train what is asked and approved, answer.

    No port is opened. HTTPS_PROXY is honoured. End it with Ctrl-C, SIGTERM or 'wardround site
    stop': the work in hand may finish for 20 seconds and is given up otherwise.

    Example: wardround site start /data/wardround/north
    """
    from wardround.common.files.account import shown, started_as_owner

    with started_as_owner(site, shown("wardround", "site", "start", site)):
        _serve(site, server)


def _serve(site: Path, server: str) -> None:
    import logging

    from wardround.client.site.folder import open_site
    from wardround.common.flower.environment import prepare_flower
    from wardround.common.runtime.printable import PrintableFormatter

    prepare_flower(open_site(site).state_folder / "flower")
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for talkative in ("httpx", "httpcore", "flwr"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    from wardround.client.daemon.daemon import run_site

    run_site(site, server or None)


def status(
    site: SiteArgument,
    as_json: AsJson = False,
) -> None:
    """Say what a site's daemon is doing, and what privacy is spent and left.

    3 while no daemon runs there or the server is not reached, so that a monitor can tell.

    Example: wardround site status /data/wardround/north
    """
    from dataclasses import asdict

    from wardround.client.daemon.control_socket import ask_daemon
    from wardround.client.daemon.status import DaemonStatus
    from wardround.client.doctor.doctor import faults_at_hand
    from wardround.client.policy.approvals import pending_studies
    from wardround.client.privacy.ledger.remaining import read_privacy_left
    from wardround.client.site.folder import open_site
    from wardround.common.errors import RunError, WardroundError
    from wardround.common.runtime.printable import write_lines

    open_site(site)
    faults = faults_at_hand(site)
    try:
        told = DaemonStatus.from_json(ask_daemon(site, "status"))
    except (TypeError, KeyError):
        msg = f"the daemon of {site} is of another version: start it anew."
        raise RunError(msg) from None
    waiting = pending_studies(site)
    try:
        left, unknown = read_privacy_left(site), ""
    except WardroundError as error:
        left, unknown = (), str(error)
    if as_json:
        privacy = [asdict(one) for one in left]
        digests = [one.study.digest for one in waiting]
        found = [asdict(one) for one in faults]
        said = {**told.to_json(), "privacy": privacy, "pending": digests, "faults": found}
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        lines = [*_status_lines(told), *(one.sentence for one in left), *filter(None, (unknown,))]
        lines += [f"{one.name}: {one.fact}: {one.remedy}" for one in faults]
        if waiting:
            said_of = f"{len(waiting)} studies wait for a decision"
            lines.append(f"{said_of}: wardround site pending {word(site)}")
        write_lines("\n".join(lines) + "\n")
    if not told.connected_since:
        raise typer.Exit(RunError.exit_code)


def stop(site: SiteArgument) -> None:
    """Tell the daemon of a site folder to end, and wait until it has.

    Example: wardround site stop /data/wardround/north
    """
    import time

    from wardround.client.daemon.control_socket import SOCKET_FILE, ask_daemon
    from wardround.common.errors import RunError

    ask_daemon(site, "stop")
    until = time.monotonic() + _STOP_SECONDS
    while (site / SOCKET_FILE).exists():
        if time.monotonic() > until:
            msg = f"the daemon of {site} still runs after {_STOP_SECONDS:g} s: end its process."
            raise RunError(msg)
        time.sleep(0.1)
    sys.stdout.write("Stopped.\n")


def pending(
    site: SiteArgument,
    as_json: AsJson = False,
) -> None:
    """List the studies that the server asked for and nobody here has decided on.

    Example: wardround site pending /data/wardround/north
    """
    from wardround.client.policy.approvals import pending_studies
    from wardround.client.site.folder import open_site
    from wardround.common.runtime.printable import quoted, write_lines

    open_site(site)
    waiting = pending_studies(site)
    if as_json:
        said = [
            {"digest": one.study.digest, "name": one.study.name, "since": one.since.isoformat()}
            for one in waiting
        ]
        sys.stdout.write(json.dumps(said) + "\n")
        return
    for one in waiting:
        digits = one.study.digest[:_SHOWN]
        write_lines(
            f"{digits}  {one.study.name}, asked for since {one.since:%Y-%m-%d %H:%M} UTC\n"
            f"{quoted(one.study.study.description or 'no description given')}\n"
            f"  read it:   wardround site explain {digits} --site {site}\n"
            f"  approve:   wardround site approve {digits} --site {site}\n"
            f"  reject:    wardround site reject {digits} --site {site}\n"
        )
    if not waiting:
        sys.stdout.write("No study waits for a decision.\n")


def approve(
    study: Annotated[
        str,
        typer.Argument(
            help="A study file (TOML), or 16 or more digits of the digest of one that this site "
            "was asked for.",
            show_default=False,
        ),
    ],
    site: SiteOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask in a terminal.")] = False,
) -> None:
    """Say what a study asks for here and what is spent, and approve it; the other rules still hold.

    An approval ends with the rounds that it names; approved again, as many are added.

    Example: wardround site approve study.toml --site /data/wardround/north
    """
    from wardround.client.doctor.decisions import approve as write_down
    from wardround.client.doctor.decisions import prepare_approval
    from wardround.common.runtime.printable import write_lines

    approval = prepare_approval(site, study)
    write_lines("\n".join(approval.terms.lines) + "\n")
    if sys.stdin.isatty() and not yes:
        typer.confirm(f"{approval.question} Do you approve this?", abort=True)
    write_lines(f"{write_down(site, approval)}\n")


def reject(digest: DigestArgument, site: SiteOption) -> None:
    """Reject a study, also one that was approved before: from the next message on it is refused.

    Example: wardround site reject 5e3a91c2d07b6f48 --site /data/wardround/north
    """
    from wardround.client.doctor.decisions import reject as write_down
    from wardround.common.runtime.printable import write_lines

    write_lines(f"{write_down(site, digest)}\n")


def _status_lines(told: "DaemonStatus") -> list[str]:
    from wardround.client.daemon.status_words import trouble_words, work_words

    reached = f"connected since {told.connected_since}" if told.connected_since else "NOT CONNECTED"
    lines = [
        f"{told.site}: server {told.server}, {reached}; process {told.process} since {told.began}",
        f"now: {work_words(told.work)}",
        f"before: {work_words(told.last)}; {told.answered} messages answered, "
        f"{told.refused} of them refused",
    ]
    if told.worker_starts > 1:
        lines.append(f"the worker process was started {told.worker_starts} times")
    return [*lines, *(f"{trouble.time} {trouble_words(trouble)}" for trouble in told.troubles)]
