"""``wardround runs track``: an operator's trackers are told of a server's run, from the desk."""

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.server.cli.operators import HERE, Identity, RunName, Server, line_to

if TYPE_CHECKING:
    from wardround.common.monitoring.trackers.tracking import Tracking
    from wardround.server.operators.client import ServerLine
    from wardround.server.operators.messages import RunRecord

_LOOK_SECONDS = 5.0


def track(
    run: RunName,
    server: Server = HERE,
    identity: Identity = None,
    user_file: Annotated[
        Path | None,
        typer.Option(
            "--track",
            metavar="FILE",
            help="Your own file of trackers, else ~/.config/wardround/user.toml if it is there.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Tell what is there now, and follow nothing.")
    ] = False,
) -> None:
    """Tell your trackers what they do not have yet of a run; one that goes on is followed.

    They are told what the run's history has: what the hospitals' own guards let out.

    Example: wardround runs track my-study-1 --server /srv/wardround --track trackers.toml
    """
    from wardround.common.errors import RunError
    from wardround.common.monitoring.trackers.tracking import Tracking, quieten_packages
    from wardround.common.monitoring.trackers.user_file import require_trackers

    tracking = Tracking(require_trackers(user_file))
    with (
        line_to(server, identity) as line,
        tempfile.TemporaryDirectory() as folder,
        quieten_packages(),
        closing(tracking),
    ):
        while _tell(line, run, tracking, Path(folder)) and not once:
            time.sleep(_LOOK_SECONDS)
    if tracking.problems:
        raise RunError(" ".join(tracking.problems))
    sys.stdout.write("Told.\n")


def _tell(line: "ServerLine", run: str, tracking: "Tracking", folder: Path) -> bool:
    """Tell what is there; return whether the run goes on."""
    from wardround.server.operators.report.tracker_course import course_of_record

    record = line.record(run)
    is_finished = record.details.summary.state == "finished"
    files = _kept(line, record, folder) if is_finished else ()
    tracking.write(course_of_record(record, files), is_last=True)
    return not record.details.summary.is_over


def _kept(line: "ServerLine", record: "RunRecord", folder: Path) -> tuple[Path, ...]:
    """Write report, study and model of a finished run to be kept beside its numbers."""
    from wardround.common.errors import WardroundError
    from wardround.server.operators.report import write_report
    from wardround.server.operators.run_model import write_model

    write_report(record, folder / "report.html")
    (folder / "study.toml").write_text(record.study, encoding="utf-8")
    name = record.details.summary.run
    try:
        write_model(line.model(name), record, folder / "model")
    except WardroundError:  # a study that asks for statistics ends without one
        return tuple(folder.glob("*.*"))
    return (*folder.glob("*.*"), *(folder / "model").glob("*.*"))
