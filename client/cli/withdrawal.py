"""``wardround site withdraw | forget-patients``: a hospital, or patients, leave a study."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from wardround.client.site.withdrawal import Note, Withdrawal
    from wardround.common.security.withdrawal.request import SignedRequest, Without

SiteOption = Annotated[Path, typer.Option("--site", help="A site folder.", show_default=False)]
ServerOption = Annotated[
    str, typer.Option(help="host:port, instead of the server that the site has joined.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask in a terminal.")]
_SHOWN = 16


def add_withdrawal_commands(app: typer.Typer) -> None:
    """Add the commands to ``wardround site``."""
    app.command()(withdraw)
    app.command("forget-patients")(forget_patients)


def withdraw(
    study: Annotated[
        str,
        typer.Argument(
            help="The study's digest, or 16 or more of its first digits.", show_default=False
        ),
    ],
    site: SiteOption,
    server: ServerOption = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Leave a study: train no more for it, and have its rounds repeated without this hospital.

    What the models made so far have learnt here stays in them until they are trained again without
    it; the server's operator begins that. Typed again, the command says how it stands, and fetches
    the certificate once there is one.

    Example: wardround site withdraw 5e3a90c2b7d14f68 --site /data/wardround/north
    """
    from wardround.client.policy.approvals import full_digest
    from wardround.client.site.folder import open_site
    from wardround.client.site.withdrawal import asked_to_leave
    from wardround.client.site.withdrawal import withdraw as leave

    name = open_site(site).name
    digest = full_digest(site, study.strip().lower())
    is_new = asked_to_leave(site, digest, "site") is None
    if is_new and sys.stdin.isatty() and not yes:
        typer.confirm(
            f"{name} trains no more for study {digest[:_SHOWN]}, and its rounds are repeated "
            "without it. Do you want to leave it?",
            abort=True,
        )
    found = leave(site, digest, "site", _noting(site), server)
    _print([found], as_json)
    if found.answer is None:
        raise typer.Exit(3)


def forget_patients(
    file: Annotated[
        Path, typer.Argument(help="One patient identifier a line.", show_default=False)
    ],
    site: SiteOption,
    server: ServerOption = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take patients out of this hospital's data, and have rounds repeated without them.

    Their rows leave the manifest, prepared copies of their images are removed, and a manifest that
    brings them back is refused. The server is told for each study trained here that patients left,
    unless nobody of them was ever used here: nobody's identifier, and not how many, leaves the
    site. What privacy cost they had stays spent.

    Example: wardround site forget-patients left.txt --site /data/wardround/north
    """
    from wardround.client.data.manifest.parts.forgetting import forget_patients as forget
    from wardround.client.data.manifest.parts.forgetting import read_identifiers
    from wardround.client.data.source_files import remove_outdated
    from wardround.client.site.folder import open_site

    opened, patients = open_site(site), read_identifiers(file)
    if sys.stdin.isatty() and not yes:
        typer.confirm(
            f"{len(patients)} patients are taken out of {opened.manifest_path} for good. Go on?",
            abort=True,
        )
    forgotten = forget(opened, patients)
    remove_outdated(opened, None)
    if not as_json:
        sys.stdout.write(
            f"{forgotten.patients} patients with {forgotten.rows} rows were taken out of the "
            f"manifest, and {forgotten.unknown} were not in it. Delete their images and {file} "
            "yourself.\n"
        )
    if not forgotten.used:
        # A file of somebody else's patients must not have every model of a federation revoked.
        _print([], as_json)
        if not as_json:
            sys.stdout.write(
                "Nobody of them was ever trained or tested on here, so no server is told. Look "
                "whether the file names patients as the manifest does.\n"
            )
        return
    found, without_run = _tell_all(site, server)
    _print(found, as_json)
    if not as_json and without_run:
        sys.stdout.write(f"{without_run} studies have no run with this site at the server.\n")
    if any(one.answer is None for one in found):
        raise typer.Exit(3)


def _tell_all(site: Path, server: str) -> "tuple[list[Withdrawal], int]":
    """Tell the server of each study that was trained here; return of how many it has no run."""
    from wardround.client.site.folder import AUDIT_FOLDER, open_site
    from wardround.client.site.server_client import RefusedByServerError
    from wardround.client.site.withdrawal import withdraw as leave
    from wardround.common.security.audit_verification import read_log

    if open_site(site).settings.server is None:
        return [], 0
    # Whatever left in a round stands in the log, however its study was approved.
    entries = (entry.event for entry in read_log(site / AUDIT_FOLDER))
    trained = dict.fromkeys(one.study for one in entries if one.study and one.round)
    found, without_run = [], 0
    for digest in trained:
        try:
            found.append(leave(site, digest, "patients", _noting(site), server))
        except RefusedByServerError:
            without_run += 1
    return found, without_run


def _noting(site: Path) -> "Note":
    from hashlib import sha256

    from wardround.client.egress.way_out import open_audit_log
    from wardround.common.security.audit_log import Event

    def note(signed: "SignedRequest") -> None:
        kind, line = f"withdrawal-{signed.asked.without}", signed.line
        digest = sha256(line).hexdigest()
        event = Event(kind=kind, study=signed.asked.study, bytes=len(line), sha256=digest)
        open_audit_log(site).append(event)

    return note


def _print(found: "list[Withdrawal]", as_json: bool) -> None:
    from wardround.common.runtime.printable import write_lines

    if as_json:
        said = [_as_json(one) for one in found]
        sys.stdout.write(json.dumps(said) + "\n")
        return
    for one in found:
        write_lines("\n".join(_words(one)) + "\n")


def _as_json(one: "Withdrawal") -> dict[str, object]:
    asked, answer = one.signed.asked, one.answer
    return {
        "study": asked.study,
        "without": asked.without,
        "request": one.signed.digest,
        "state": "not reached" if answer is None else answer.state,
        "repeat": "" if answer is None else answer.study,
        "certificate": None if one.certificate is None else str(one.certificate),
    }


def _words(one: "Withdrawal") -> list[str]:
    asked, answer = one.signed.asked, one.answer
    what = _what(asked.without)
    lines = [f"{what} left study {asked.study[:_SHOWN]}: no round of it is trained with it here."]
    if asked.without == "patients":
        lines = [f"{what} left study {asked.study[:_SHOWN]}: no round is trained with them."]
    if answer is None:
        return [*lines, f"The server does not know yet: {one.problem} Type the same again later."]
    if answer.state == "noted":
        lines.append("The server has noted it; its operator begins the repeat.")
    elif one.certificate is None:
        lines.append(f"Study {answer.study[:_SHOWN]} repeats the rounds: {answer.state}.")
    if one.certificate is not None:
        lines.append(f"The rounds were repeated. Certificate: {one.certificate}")
        lines.append(f"Check it: wardround model verify-withdrawal {one.certificate}")
    return lines


def _what(without: "Without") -> str:
    return "This hospital" if without == "site" else "Patients"
