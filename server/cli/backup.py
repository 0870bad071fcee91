"""``wardround server backup | restore``: a server folder as one file, and back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.printable import word

ServerFolder = Annotated[Path, typer.Argument(help="A server folder.", show_default=False)]
BackupFile = Annotated[Path, typer.Argument(help="The backup's file.", show_default=False)]


def add_backup_commands(server_app: typer.Typer) -> None:
    """Add the commands to ``wardround server``."""
    server_app.command()(backup)
    server_app.command()(restore)


def backup(server: ServerFolder, file: BackupFile) -> None:
    """Write all of a server folder that counts to a new file, while the server runs.

    It holds the authority's key, members, invitations, the queue and every run. Whoever has it can
    admit sites: keep it where nobody else comes.

    Example: wardround server backup /srv/wardround /backup/wardround-2026-05-04.tar
    """
    from wardround.server.service.backup import back_up_server

    count = back_up_server(server, file)
    sys.stdout.write(f"Wrote {file}: {count} files. It holds ca.key: keep it as you keep that.\n")


def restore(file: BackupFile, server: ServerFolder) -> None:
    """Make a server folder from a backup; the folder must be new or empty.

    Sites reconnect without a new invitation if the server answers at the same address. Runs go on
    from their last commit in the backup.

    Example: wardround server restore /backup/wardround-2026-05-04.tar /srv/wardround
    """
    from wardround.server.service.backup import restore_server

    found = restore_server(file, server)
    when = f"{found.written:%Y-%m-%d %H:%M} UTC"
    sys.stdout.write(
        f"Made {server} as it was on {when}: {found.files} files, wardround {found.version}.\n"
        f"A site revoked after that is a member again: wardround server revoke SITE. One that "
        "joined or renewed its certificate after that needs a new invitation.\n"
        "See that no other server of this consortium runs, then: "
        f"wardround server start {word(server)}\n"
    )
