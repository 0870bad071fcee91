"""The model that a finished run keeps: its file in parts, and the model folder made of them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from wardround.common.errors import InputError, RunError, WardroundError
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.files.json_lines import split_lines
from wardround.server.checkpoints.release import revoked_because
from wardround.server.operators.messages import ModelPart, RunRecord
from wardround.server.scheduling.folder import LOG_FILE, RunFolder
from wardround.server.scheduling.store import FINISHED, RunRow

_PART_BYTES = 2**20


def model_parts(folder: Path, row: RunRow) -> Iterator[ModelPart]:
    """Yield the file of the model that a run keeps, in parts.

    Raises:
        InputError: The run has not finished, so that it has no model yet.
        RunError: The file cannot be read.
    """
    if row.state != FINISHED:
        msg = f"run {row.run} is {row.state}: it has a model once it has finished."
        raise InputError(msg)
    run = RunFolder(folder, row.run)
    if reason := revoked_because(run.path):
        msg = f"the model of run {row.run} was revoked: {reason}. A later run has one without."
        raise InputError(msg)
    try:
        kept, digest = _kept(run)
        with run.model_path.open("rb") as stream:
            while data := stream.read(_PART_BYTES):
                yield ModelPart(digest, kept, data)
    except OSError as error:
        msg = f"the model of run {row.run} cannot be read ({error.strerror}): check the disk."
        raise RunError(msg) from None


def write_model(parts: Iterable[ModelPart], record: RunRecord, folder: Path) -> str:
    """Write a model as a model folder; return its card.

    Args:
        record: Of the model's run.
        folder: The model folder, which must be new.

    Raises:
        InputError: It cannot be written there, or the run asked for statistics.
        RunError: What came is not the model that the run's log speaks of.
    """
    from wardround.common.models.model_folder import write_model_folder
    from wardround.common.parameters.arithmetic import digest
    from wardround.common.parameters.model_file import LINEAGE, load_model
    from wardround.server.operators.model_description import describe_model

    _refuse_statistics(record)
    if folder.exists():
        msg = f"{folder} exists already: choose another folder with --out."
        raise InputError(msg)
    received = list(parts)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        try:
            replace_file(unfinished, b"".join(part.data for part in received), READABLE)
            weights, header = load_model(unfinished)
        except WardroundError:
            weights, header = {}, {}
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write {folder} ({error.strerror}): choose another folder with --out."
        raise InputError(msg) from None
    if not received or digest(weights) != received[0].digest:
        msg = "what came is not the model that the run's log speaks of: fetch it again."
        raise RunError(msg)
    lineage = header.get(LINEAGE, "")
    described = describe_model(weights, record, received[0].kept_round, lineage)
    write_model_folder(
        folder, described.weights, described.contract, described.measured, described.texts, lineage
    )
    return described.texts[0]


def _refuse_statistics(record: RunRecord) -> None:
    """Refuse a run that asked for statistics: its file is no model."""
    import tomllib

    if tomllib.loads(record.study).get("statistics", {}).get("ask"):
        run = record.details.summary.run
        msg = (
            f"run {run} asked for statistics and made no model: 'wardround study plan STUDY "
            f"--server SERVER --run {run}' reads them."
        )
        raise InputError(msg)


def _kept(run: RunFolder) -> tuple[int, str]:
    """Return the round of the kept model and its digest, as the run's log has them last."""
    lines, _ = split_lines((run.path / LOG_FILE).read_bytes())
    for line in reversed(lines):
        said = json.loads(line)
        if said.get("event") == FINISHED:
            return int(said["kept_round"]), str(said["model"])
    msg = f"the log of run {run.name} does not say which model it kept: run the study again."
    raise RunError(msg)
