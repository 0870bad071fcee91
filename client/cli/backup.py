"""``wardround site backup | restore``: a site folder as one file, and back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.printable import word

SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
BackupFile = Annotated[Path, typer.Argument(help="The backup's file.", show_default=False)]


def add_backup_commands(site_app: typer.Typer) -> None:
    """Add the commands to ``wardround site``."""
    site_app.command()(backup)
    site_app.command()(restore)


def backup(
    site: SiteFolder,
    file: BackupFile,
    keys: Annotated[
        bool,
        typer.Option(
            "--keys", help="The private keys too: whoever has the file can then act as this site."
        ),
    ] = False,
) -> None:
    """Write all of a site folder that counts to a new file, while the daemon runs.

    It holds the manifest (identifiers!), who is in which part, the ledger, the audit log, policy,
    decisions, and the secret of imports. Images are not in it, nor without --keys the private keys.

    Example: wardround site backup /srv/site /backup/site-2026-05-04.tar
    """
    from wardround.client.site.backup import back_up_site

    count = back_up_site(site, file, keys)
    said = "It holds the site's private keys and" if keys else "It holds"
    sys.stdout.write(f"Wrote {file}: {count} files. {said} what names patients: protect it.\n")


def restore(file: BackupFile, site: SiteFolder) -> None:
    """Make a site folder from a backup; the folder must be new or empty.

    Example: wardround site restore /backup/site-2026-05-04.tar /srv/site
    """
    from wardround.client.privacy.ledger.file import LEDGER_FILE, LEDGER_FOLDER, read_ledger
    from wardround.client.site.backup import FORMER_FOLDER, restore_site

    found, has_keys = restore_site(file, site)
    lines = [f"Made {site} as it was on {found.written:%Y-%m-%d %H:%M} UTC: {found.files} files."]
    if (site / LEDGER_FOLDER / LEDGER_FILE).exists():
        entries = len(read_ledger(site).entries)
        lines.append(
            f"Its ledger has {entries} entries. If the site has spent more since, the server has "
            "seen that, and the site refuses until the newest ledger is put back."
        )
    if has_keys:
        lines.append(
            f"See that no daemon serves the old folder, then: wardround site doctor {word(site)}"
        )
    else:
        lines.append(
            "It has no keys: ask the server's operator to revoke this site and to invite it, then "
            f"'wardround site join TOKEN --folder {site}'."
        )
        if (site / FORMER_FOLDER).exists():
            lines.append(
                f"A new audit log begins; the former is in {site / FORMER_FOLDER}, each with the "
                "key that verifies it."
            )
    sys.stdout.write("\n".join(lines) + "\n")
