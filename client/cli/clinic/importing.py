"""``wardround site import``: images of a folder or of the picture archive into the site folder."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wardround.client.clinic.onboarding.run import ImportReport

Source = Annotated[
    str, typer.Argument(help="A folder, or: pacs (the archive of pacs.toml).", show_default=False)
]
SiteFolder = Annotated[
    Path | None, typer.Argument(help="The site folder to import into.", show_default=False)
]
_LIMITS = (
    "What names a patient was taken out by PS3.15's basic profile, and each file was checked. That "
    "is no guarantee: faces in head scans stay, and text in pixels may be missed. Your hospital "
    "decides whether these images may be used."
)
_NEGATION = "Reports: words were looked for, and negation is not understood ('no pneumonia')."


def add_import_commands(site_app: typer.Typer) -> None:
    """Add the command to ``wardround site``."""
    site_app.command(name="import")(import_images)


def import_images(  # noqa: PLR0913 # one argument an option of the command line
    source: Source,
    site: SiteFolder = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="TOML file: which series, which labels.", show_default=False),
    ] = None,
    scan: Annotated[
        bool,
        typer.Option(
            "--scan", help="Take a folder as it is: BIDS, nnU-Net, Decathlon, classes, pairs."
        ),
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="With --scan: write the manifest, not only show it.")
    ] = False,
    patient: Annotated[
        str,
        typer.Option(help="With --scan: pattern whose group is the patient in a file's name."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be imported; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Import images: DICOM, de-identified and by rules, or a folder as it is (--scan).

    It may be stopped and run again: what is there is not loaded twice, what is new is added.

    Example: wardround site import /export/ct --rules import.toml /srv/site
    """
    from wardround.common.errors import InputError

    if scan:
        if rules is not None or as_json:
            msg = "--rules and --json go with an import by rules: leave them out beside --scan."
            raise InputError(msg)
        _scan(source, site, patient, write)
        return
    if site is None or rules is None:
        msg = (
            "an import of DICOM needs the rules and a site folder: wardround site import SOURCE "
            "--rules import.toml SITE. A folder as it is: wardround site import --scan FOLDER."
        )
        raise InputError(msg)
    if write or patient:
        msg = (
            "--write and --patient go with --scan; without it, --dry-run shows what would be done."
        )
        raise InputError(msg)
    from wardround.client.clinic.onboarding.rules import read_rules
    from wardround.client.clinic.onboarding.run import import_images as run_import

    report = run_import(source, rules, site, dry_run, _progress if not as_json else _silent)
    if as_json:
        sys.stdout.write(json.dumps(report.counts, indent=2) + "\n")
        return
    _print(report, dry_run, bool(read_rules(rules).labels.report))


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty() and of:
        sys.stderr.write(f"\rstudy {done} of {of} " + ("\n" if done == of else ""))
        sys.stderr.flush()


def _silent(done: int, of: int) -> None:
    del done, of


def _print(report: "ImportReport", dry_run: bool, reads_reports: bool) -> None:
    from wardround.common.runtime.printable import write_lines

    would = "Would import" if dry_run else "Imported"
    lines = [
        f"{would} {report.imported} of {report.found} examinations, of {len(report.patients)} "
        f"patients; {report.already} were there already."
    ]
    if not dry_run:
        lines.append(
            f"Text was looked for in the pixels of {report.searched} images, and masked in "
            f"{report.masked}."
        )
    for what in ("studies", "series", "files"):
        counted = getattr(report, what)
        if counted:
            lines.append(f"Left out, {what}:")
            lines += [f"  {number:6d}  {reason}" for reason, number in counted.most_common(30)]
    if report.rows:
        lines.append("The manifest would begin:")
        lines += _table(report.columns, report.rows)
    if reads_reports:
        lines.append(_NEGATION)
    lines.append(_LIMITS)
    write_lines("\n".join(lines) + "\n")


def _scan(source: str, site: Path | None, patient: str, write: bool) -> None:
    from wardround.client.clinic.onboarding.scan.folder import scan_folder
    from wardround.client.clinic.onboarding.scan.written_manifest import write_manifest
    from wardround.common.runtime.printable import write_lines

    found = scan_folder(Path(source), patient)
    lines = [f"{found.layout}: {len(found.rows)} examinations of {found.patients} patients."]
    lines += [f"  {said}" for said in found.explanations]
    lines += ["The manifest begins:" if write else "The manifest would begin:"]
    lines += _table(found.columns, found.rows[:5])
    if write:
        lines.append(f"Wrote {write_manifest(found, site)}.")
    else:
        lines.append("Nothing is written. With --write it is.")
    write_lines("\n".join(lines) + "\n")


def _table(columns: "tuple[str, ...]", rows: "list[dict[str, str]]") -> list[str]:
    lines = [",".join(columns)]
    lines += [",".join(row.get(column, "") for column in columns) for row in rows]
    return [f"  {line}" for line in lines]
