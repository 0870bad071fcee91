"""``wardround site review``: readers look at chosen cases, and what they say is trained on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson, Device
from wardround.common.runtime.printable import word

if TYPE_CHECKING:
    from wardround.client.clinic.review.taking import Desk, Taken
    from wardround.client.site.folder import Site

review_app = typer.Typer(
    help="Readers in the loop: chosen cases, and corrections that are trained on.",
    no_args_is_help=True,
    suggest_commands=False,
)
SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
QueueName = Annotated[
    str, typer.Option(help="Of a queue; the only one if left out.", show_default=False)
]
Reader = Annotated[str, typer.Option(help="Who says so: a name or initials.", show_default=False)]
_REFUSED = 1
_ARCHIVE = "pacs"


@review_app.command("queue")
def make(  # noqa: PLR0913 # one argument an option of the command line
    site: SiteFolder,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="A model folder; several are a committee.", show_default=False),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the queue: small letters, digits, dashes.")
    ] = "first",
    by: Annotated[
        str, typer.Option(help="entropy, disagreement (of several models), bald, or random.")
    ] = "entropy",
    budget: Annotated[int, typer.Option(help="Cases that are chosen, and as many by lot.")] = 20,
    spread: Annotated[
        bool, typer.Option(help="Take cases that differ, among the least sure.")
    ] = True,
    control: Annotated[bool, typer.Option(help="Draw as many by lot beside them.")] = True,
    again: Annotated[
        bool, typer.Option("--again", help="Also cases that were read before.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Choose cases of training patients for readers; the list does not say which were chosen.

    Example: wardround site review queue /srv/site --model runs/first/models/federated
    """
    from wardround.client.clinic.review.cases import list_cases
    from wardround.client.clinic.review.opinions import open_committee
    from wardround.client.clinic.review.queue import Wish, make_queue, save_queue
    from wardround.client.clinic.review.record import write_down
    from wardround.common.errors import InputError
    from wardround.common.runtime.printable import write_lines

    opened = _open(site)
    if not model:
        msg = "a queue asks a model, if only for the classes: give --model FOLDER."
        raise InputError(msg)
    committee = open_committee(model, by, device)
    wish = Wish(name, by, budget, spread, control, again)
    made = make_queue(list_cases(opened, committee.study), committee, committee.study, wish)
    place = save_queue(opened, made)
    count = len(made.entries)
    write_down(opened, "review", f"allow: {count} cases queued", "", committee.study.digest)
    if as_json:
        said = {"queue": made.name, "cases": count, "list": str(place), "notes": made.notes}
        write_lines(json.dumps(said) + "\n")
        return
    lines = [f"Queued {count} cases: {place}"]
    lines += [f"{note[:1].upper()}{note[1:]}." for note in made.notes]
    lines.append(
        "The list names rows, not who was chosen: do not show readers the .json beside it."
    )
    write_lines("\n".join(lines) + "\n")


@review_app.command("label")
def label_case(
    site: SiteFolder,
    case: Annotated[str, typer.Argument(help="Of the reader's list.", show_default=False)],
    label: Annotated[str, typer.Argument(help="A class; several joined by ';'.")],
    reader: Reader,
    queue: QueueName = "",
) -> None:
    """Write down what a reader says of one case.

    Example: wardround site review label /srv/site 5f2c0a77d1e94b36 pneumonia --reader AB
    """
    from wardround.common.runtime.printable import write_lines

    desk = _desk(site, queue)
    (written,) = desk.hand_in(reader, [desk.label_opinion(case, label)], "command")
    old = written.old or "no label"
    write_lines(f"Case {case}: {old} -> {written.new}, by {written.reader}.\n")


@review_app.command("take")
def take_corrections(
    site: SiteFolder,
    source: Annotated[
        str,
        typer.Argument(
            help="The reader's list with its column label filled in, a folder of masks named by "
            "their cases, or: pacs (segmentations and reports of the archive).",
            show_default=False,
        ),
    ],
    reader: Reader = "",
    queue: QueueName = "",
    as_json: AsJson = False,
) -> None:
    """Take corrections in; 1 if some of them are refused. The next round trains on the others.

    Example: wardround site review take /srv/site read.csv --reader AB
    """
    from wardround.client.clinic.review.taking import take
    from wardround.common.errors import InputError

    if not source.strip():  # Path("") is the working folder
        msg = "an empty name was given for corrections: is a shell variable not set?"
        raise InputError(msg)
    desk = _desk(site, queue)
    if source == _ARCHIVE:
        from wardround.client.clinic.pacs.archive import open_archive
        from wardround.client.clinic.review.dicom_objects.taking import take_from_archive

        found = take_from_archive(desk, open_archive(desk.site.folder), reader)
        more = [f"{found.known} were taken before."] if found.known else []
        more += [f"{n} passed over: {why}." for why, n in found.passed_over.items()]
        _say(found, desk, as_json, more)
        return
    _say(take(desk, Path(source), reader), desk, as_json, [])


@review_app.command("open")
def open_queue(
    site: SiteFolder,
    out: Annotated[Path, typer.Option(help="A new folder: it will hold patients' images.")],
    queue: QueueName = "",
    model: Annotated[
        Path | None,
        typer.Option(help="Draws the first mask where there is none.", show_default=False),
    ] = None,
) -> None:
    """Write a queue's images and masks into a folder, to be edited with any program and taken back.

    Example: wardround site review open /srv/site --out to-edit
    """
    from wardround.client.clinic.review.handing_out import hand_out
    from wardround.client.clinic.review.opinions import open_committee
    from wardround.common.runtime.printable import write_lines

    committee = None if model is None else open_committee([model], "entropy")
    count = hand_out(_desk(site, queue), out, committee)
    write_lines(
        f"Wrote {count} images and masks to {out}. Change the masks and keep their names; then: "
        f"wardround site review take {word(site)} {word(out)} --reader NAME\n"
    )


@review_app.command("page")
def serve_page(
    site: SiteFolder,
    reader: Reader,
    queue: QueueName = "",
    model: Annotated[
        Path | None,
        typer.Option(help="Draws the first mask where there is none.", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(help="Of this machine; 0 takes a free one.")] = 0,
) -> None:
    """Serve a queue to a browser of this machine, until Ctrl-C: buttons for classes, or a brush.

    Whoever has the link sees patients' images, and what they say is written down as the reader's.

    Example: wardround site review page /srv/site --reader AB
    """
    import sys

    from wardround.client.clinic.review.opinions import open_committee
    from wardround.client.page.review.page import ReadingPage, serve_reading_page

    def tell(link: str) -> None:
        sys.stdout.write(f"Open {link}\nCtrl-C ends the page.\n")
        sys.stdout.flush()

    committee = None if model is None else open_committee([model], "entropy")
    serve_reading_page(ReadingPage(_desk(site, queue), reader, committee), port, tell)


@review_app.command("report")
def tell(
    site: SiteFolder,
    queue: QueueName = "",
    train: Annotated[int, typer.Option(help="Train so often on each arm, here, and compare.")] = 0,
    rounds: Annotated[
        int | None, typer.Option(help="Of these trainings; the study's if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what came of a queue: whether choosing beat random, and whether readers agree.

    Example: wardround site review report /srv/site --train 5
    """
    from wardround.client.clinic.review.readers import compare_readers
    from wardround.client.clinic.review.report import make_report
    from wardround.common.runtime.printable import write_lines

    desk = _desk(site, queue)
    trial = None
    if train:
        from wardround.client.clinic.review.trial import compare_training

        trial = compare_training(desk, train, rounds)
    report = make_report(desk.queue, desk.listed.corrections.lines, compare_readers(desk), trial)
    text = json.dumps(report.content()) if as_json else "\n".join(report.lines())
    write_lines(text + "\n")


def _open(site: Path) -> "Site":
    from wardround.client.site.folder import open_site

    return open_site(site)


def _desk(site: Path, queue: str) -> "Desk":
    from wardround.client.clinic.review.cases import list_cases
    from wardround.client.clinic.review.queue import read_queue
    from wardround.client.clinic.review.taking import Desk

    opened = _open(site)
    read = read_queue(opened, queue)
    study = read.read_study()
    return Desk(opened, read, study, list_cases(opened, study))


def _say(taken: "Taken", desk: "Desk", as_json: bool, more: list[str]) -> None:
    from wardround.common.runtime.printable import write_lines

    held = sum(desk.cases[one.case].part != "train" for one in taken.written)
    if as_json:
        said = {
            "taken": len(taken.written),
            "changed": taken.changed,
            "refused": taken.refused,
            "not_trained_on": held,
        }
        write_lines(json.dumps(said) + "\n")
    else:
        lines = [f"Took {len(taken.written)} corrections; {taken.changed} change something."]
        if held:
            lines.append(f"{held} are of validation or test patients, and stay there.")
        lines += [*more, *(f"Refused: {reason}" for reason in taken.refused)]
        write_lines("\n".join(lines) + "\n")
    if taken.refused:
        raise typer.Exit(_REFUSED)
