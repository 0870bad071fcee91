"""``wardround site monitor``: whether a model still sees what it was made for."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wardround.client.cli.clinic.monitor_words import (
    MOST_SHOWN,
    entry_lines,
    failed_inputs,
    failure_lines,
    lacking_lines,
    performance_line,
    summary_lines,
)
from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from wardround.client.clinic.inference.predictor import Predictor
    from wardround.client.clinic.monitoring.store import MonitorFolder

monitor_app = typer.Typer(
    help="Whether a model still sees what it was made for; nothing of it leaves.",
    no_args_is_help=True,
    suggest_commands=False,
)
SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or a GPU such as cuda:1.")]
_ALARM = 1


@monitor_app.command("reference")
def set_reference(  # noqa: PLR0913 # one argument an option of the command line
    site: SiteFolder,
    model: Annotated[Path, typer.Option(help="A model folder, or a run folder.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images as for 'wardround predict'; none: those of the site's manifest that the "
            "model was not trained on.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="Of the site's manifest, with commas: train, validation, test; absent: "
            "validation,test.",
            show_default=False,
        ),
    ] = "",
    every: Annotated[str, typer.Option(help="A period is a day, a week or a month.")] = "week",
    false_alarms: Annotated[
        float, typer.Option(help="Expected in a year without any change.")
    ] = 0.25,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Set the reference: images as they were when the model began, better 200 than 100.

    Images that the model was trained on make it look surer than it is; a reference needs others.

    Example: wardround site monitor reference /data/wardround/north --model models/federated
    """
    from wardround.client.clinic.inference.inputs import find_inputs
    from wardround.client.clinic.monitoring import reference
    from wardround.client.clinic.monitoring.periods import every_named
    from wardround.client.site.folder import open_site
    from wardround.common.errors import InputError

    opened = open_site(site)
    if inputs and split:
        msg = "--split is of the site's manifest: leave it out, or name no images."
        raise InputError(msg)
    options = reference.Options(every_named(every), false_alarms)
    folder, predictor = _predictor(model, device)
    labels: dict[int, tuple[float, ...]] = {}
    if inputs:
        named = find_inputs(inputs, predictor.study)
    else:
        named, labels = reference.held_out_inputs(
            opened, predictor.study, _splits(split or "validation,test")
        )
    began = reference.set_reference(
        opened, (predictor, folder), named, options, _progress(as_json), labels
    )
    found = began.monitor.reference
    if as_json:
        said = {"model": found.model, "digest": found.digest, "cases": len(began.gathered.cases)}
        rest = {"labelled": began.labelled, "every": found.every}
        _print_json({**said, **rest, "failed": failed_inputs(began.gathered)})
        return
    lines = [
        f"The reference of {found.model!r}: {len(began.gathered.cases)} images, {began.labelled} "
        f"with a label; looked at every {found.every}."
    ]
    if len(began.gathered.cases) < reference.ADVISED_CASES:
        lines.append(
            f"That is few: with {reference.ADVISED_CASES} or more, changes are seen sooner."
        )
    _print([*lines, *failure_lines(began.gathered)])


@monitor_app.command("add")
def add(  # one argument an option of the command line
    site: SiteFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(help="Images as for 'wardround predict'.", show_default=False),
    ],
    period: Annotated[
        str, typer.Option(help="Such as 2026-W48; absent: the one that runs.", show_default=False)
    ] = "",
    model: Annotated[
        Path | None,
        typer.Option(help="Absent: that of the reference, where it lay.", show_default=False),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict images, and count them to a period; what was counted before is not counted twice.

    Periods that are over are looked at then. 1 if some images could not be used, or an alarm is
    open.

    Example: wardround site monitor add /data/wardround/north /export/this-week
    """
    from wardround.client.clinic.inference.inputs import find_inputs
    from wardround.client.clinic.monitoring.gathering import gather
    from wardround.client.clinic.monitoring.monitor import add_cases, close_periods
    from wardround.client.clinic.monitoring.store import open_monitor
    from wardround.client.site.folder import open_site
    from wardround.common.errors import InputError

    opened = open_site(site)
    place = model or Path(open_monitor(opened).reference.folder)
    if model is None and not place.is_dir():
        msg = f"the reference's model is no longer at {place}: name it with --model."
        raise InputError(msg)
    _, predictor = _predictor(place, device)
    monitor = open_monitor(opened, predictor.digest, predictor.contract.name)
    found = find_inputs(inputs, predictor.study)
    gathered = gather(predictor, found, monitor.key_of, _progress(as_json))
    added = add_cases(monitor, gathered.cases, period)
    closed = close_periods(monitor)
    if as_json:
        said = {"period": added.period, "added": added.new, "known": added.known}
        _print_json({**said, "failed": failed_inputs(gathered), "looked_at": closed})
    else:
        known = f", {added.known} were there" if added.known else ""
        lines = [f"Added {added.new} images to {added.period}{known}."]
        _print([*lines, *failure_lines(gathered), *entry_lines(closed)])
    _exit(monitor, also=bool(gathered.failed))


@monitor_app.command("close")
def close(
    site: SiteFolder,
    period: Annotated[
        str,
        typer.Option(
            help="Look at this one now, though the calendar says that it runs.", show_default=False
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Look at the periods that are over; each is looked at once. 1 if an alarm is open.

    Example: wardround site monitor close /data/wardround/north
    """
    from wardround.client.clinic.monitoring.monitor import close_periods

    monitor = _opened(site)
    closed = close_periods(monitor, period)
    if as_json:
        _print_json({"looked_at": closed})
    else:
        _print(entry_lines(closed) or ["No period is over that was not looked at."])
    _exit(monitor)


@monitor_app.command("labels")
def add_labels(
    site: SiteFolder,
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV: image (as it was added) or series, and label.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Give labels that came later: how well the model did, and whether it is still calibrated.

    Example: wardround site monitor labels /data/wardround/north read-in-november.csv
    """
    from dataclasses import asdict

    from wardround.client.clinic.monitoring import labels
    from wardround.common.models.model_folder import open_model_folder

    monitor = _opened(site)
    study = open_model_folder(Path(monitor.reference.folder), None).study
    truths, unknown = labels.read_labels(monitor, table, study)
    entry = labels.look_at_labels(monitor, truths)
    held, named = monitor.truths(), {truth.key for truth in truths}
    own = [c for cases in monitor.cases().values() for c in cases if c.key in named]
    before = labels.performance_of(monitor.reference_cases(), held)
    after = labels.performance_of(own, held)
    if as_json:
        said = {"labelled": len(truths), "unknown": unknown, "found": entry}
        old, new = (None if one is None else asdict(one) for one in (before, after))
        _print_json({**said, "reference": old, "new": new})
    else:
        lines = [f"{len(truths)} labels; {unknown} rows are of images that were not added."]
        pairs = (("Reference", before), ("New images", after))
        lines += [performance_line(name, one) for name, one in pairs if one is not None]
        if after is None:
            lines.append("These are the reference's: what comes later is held against them.")
        elif not entry["findings"]:
            least = labels.LEAST_LABELLED
            lines.append(f"Not compared: that needs {least} labels here and in the reference.")
        _print([*lines, *entry["alarms"], *entry["notices"]])
    _exit(monitor)


@monitor_app.command("acknowledge")
def acknowledge(
    site: SiteFolder,
    reason: Annotated[str, typer.Option(help="What was found out.", show_default=False)],
    reference: Annotated[
        str,
        typer.Option(
            help="keep: it stays. extend: nothing had changed, the images since then join it. "
            "renew: the change stays, the images since it began are the new one."
        ),
    ] = "keep",
    as_json: AsJson = False,
) -> None:
    """Close the open alarms, with the reason, and say whether what is new is normal now.

    Example: wardround site monitor acknowledge /data/wardround/north --reason "new scanner"
    --reference renew
    """
    from wardround.client.clinic.monitoring.monitor import close_alarms, in_force
    from wardround.client.clinic.monitoring.renewal import renewal_named
    from wardround.common.files.account import this_account

    renewal = renewal_named(reference)
    monitor = _opened(site)
    count = close_alarms(monitor, reason, this_account().name, renewal)
    held = in_force(monitor)
    if as_json:
        said = {"closed": count, "reference": renewal, "reference_cases": len(held.cases)}
        _print_json({**said, "lacking": held.lacking})
        return
    lines = [f"Closed {count} {'alarm' if count == 1 else 'alarms'}."]
    if renewal != "keep":
        lines.append(f"The reference has {len(held.cases)} images now.")
    _print([*lines, *lacking_lines(held.lacking)])


@monitor_app.command("status")
def status(site: SiteFolder, as_json: AsJson = False) -> None:
    """Say what was found, period by period; 1 if an alarm is open.

    Example: wardround site monitor status /data/wardround/north
    """
    from dataclasses import asdict

    from wardround.client.clinic.monitoring.monitor import close_periods, in_force, open_alarms
    from wardround.client.clinic.monitoring.renewal import PERIOD

    monitor = _opened(site)
    close_periods(monitor)
    entries, reference = monitor.entries(), monitor.reference
    alarms = open_alarms(entries)
    over = {name for e in entries if e["kind"] == PERIOD for name in (e["period"], *e["with"])}
    waiting = {p: len(cases) for p, cases in sorted(monitor.cases().items()) if p not in over}
    held = in_force(monitor)
    count = len(held.cases)
    if as_json:
        said = {"model": reference.model, "digest": reference.digest, "every": reference.every}
        rest = {"reference_cases": count, "alarms": [asdict(one) for one in alarms]}
        rest["lacking"] = held.lacking
        _print_json({**said, **rest, "waiting": waiting, "entries": entries})
    else:
        lines = [
            f"{reference.model}: {count} images in the reference, "
            f"looked at every {reference.every}."
        ]
        lines += [f"ALARM {one.period}: {text}" for one in alarms for text in one.words]
        lines += ["No alarm is open."] if not alarms else []
        lines += lacking_lines(held.lacking)
        lines += [f"{one}" for one in summary_lines(entries)[-MOST_SHOWN:]]
        lines += [f"{period} runs: {number} images." for period, number in waiting.items()]
        _print(lines)
    _exit(monitor)


@monitor_app.command("page")
def write_page(
    site: SiteFolder,
    out: Annotated[
        Path | None, typer.Option(help="Absent: in the site folder.", show_default=False)
    ] = None,
) -> None:
    """Write a page with plots; it loads nothing and is for this hospital.

    Example: wardround site monitor page /data/wardround/north --out monitoring.html
    """
    from wardround.client.clinic.monitoring.monitor import close_periods
    from wardround.client.clinic.monitoring.page import page_of
    from wardround.common.errors import InputError
    from wardround.common.files.atomic import replace_file

    monitor = _opened(site)
    close_periods(monitor)
    place = out or monitor.folder / "page.html"
    try:
        replace_file(place, page_of(monitor))
    except OSError as error:
        msg = f"cannot write {place} ({error.strerror}): choose another --out."
        raise InputError(msg) from None
    _print([f"Wrote {place}"])


def _opened(site: Path) -> "MonitorFolder":
    from wardround.client.clinic.monitoring.store import open_monitor
    from wardround.client.site.folder import open_site

    return open_monitor(open_site(site))


def _predictor(model: Path, device: str) -> "tuple[Path, Predictor]":
    from wardround.client.clinic.inference.predictor import load_predictor
    from wardround.client.clinic.inference.work import model_folders

    (folder,) = model_folders(model, (), ensemble=False)
    return folder, load_predictor(folder, device, uncertainty=True)


def _splits(text: str) -> Any:
    from wardround.client.data.manifest.examination import SPLITS
    from wardround.common.errors import InputError, known_names

    found = [part.strip() for part in text.split(",") if part.strip()]
    for one in found or [text]:
        if one not in SPLITS:
            raise InputError(known_names("split", one, SPLITS))
    return found


def _progress(quiet: bool) -> Callable[[int, int], None]:
    if quiet or not sys.stderr.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total}" + ("\n" if done == total else ""))
        sys.stderr.flush()

    return show


def _exit(monitor: "MonitorFolder", also: bool = False) -> None:
    from wardround.client.clinic.monitoring.monitor import open_alarms

    if also or open_alarms(monitor.entries()):
        raise typer.Exit(_ALARM)


def _print_json(content: Mapping[str, Any]) -> None:
    from wardround.common.runtime.printable import write_lines

    write_lines(json.dumps(content, default=str) + "\n")


def _print(lines: Sequence[str]) -> None:
    from wardround.common.runtime.printable import write_lines

    write_lines("\n".join(lines) + "\n")
