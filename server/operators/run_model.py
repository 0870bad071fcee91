"""The model that a finished run keeps: its file in parts, and a card that says what it is."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from wardround.common.errors import InputError, RunError, WardroundError
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.files.json_lines import split_lines
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
    try:
        kept, digest = _kept(run)
        with run.model_path.open("rb") as stream:
            while data := stream.read(_PART_BYTES):
                yield ModelPart(digest, kept, data)
    except OSError as error:
        msg = f"the model of run {row.run} cannot be read ({error.strerror}): check the disk."
        raise RunError(msg) from None


def write_model(parts: Iterable[ModelPart], record: RunRecord, path: Path) -> str:
    """Write a model as it comes, and beside it a card; return the card.

    Args:
        record: Of the model's run.
        path: The file; the card gets the same name with ``.md`` at its end.

    Raises:
        InputError: It cannot be written there, or the run asked for statistics.
        RunError: What came is not the model that the run's log speaks of.
    """
    from wardround.common.parameters.arithmetic import digest
    from wardround.common.parameters.model_file import load_model

    _refuse_statistics(record)
    received = list(parts)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        replace_file(unfinished, b"".join(part.data for part in received), READABLE)
        try:
            found = digest(load_model(unfinished).parameters)
        except WardroundError:
            found = ""
        if not received or found != received[0].digest:
            unfinished.unlink()
            msg = "what came is not the model that the run's log speaks of: fetch it again."
            raise RunError(msg)
        unfinished.replace(path)
        card = _card(record, received[0])
        replace_file(path.with_name(f"{path.name}.md"), card.encode(), READABLE)
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}): choose another file with --out."
        raise InputError(msg) from None
    return card


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


def _card(record: RunRecord, part: ModelPart) -> str:
    """Return what whoever gets the model has to know, in lines of Markdown."""
    import tomllib

    from wardround.common.study.loading import parse_study
    from wardround.server.operators.report.privacy import privacy_words

    run, study = record.details.summary, parse_study(tomllib.loads(record.study))
    counted: dict[str, int] = {}
    for one in record.parts:
        counted[one.site] = counted.get(one.site, 0) + 1
    took = ", ".join(f"{site} ({rounds} rounds)" for site, rounds in sorted(counted.items()))
    values = [one.value for one in record.details.history if one.measured_round == part.kept_round]
    value = next((f"{value:.4f}" for value in values if value is not None), "not let out")
    ended = datetime.fromtimestamp(run.ended or 0.0, UTC)
    try:
        privacy = privacy_words(record.study, counted)
    except WardroundError as error:  # the accountant is not installed here
        privacy = (str(error),)
    lines = (
        f"# The model of run {run.run}",
        f"- study: {run.study}, digest {run.digest}",
        f"- network: {study.model.network}, for {study.study.task}: "
        f"{', '.join(study.data.classes)}",
        f"- model: digest {part.digest}, made after round {part.kept_round} of {run.rounds}; "
        f"the run ended on {ended:%Y-%m-%d}",
        f"- {run.metric} on the sites' validation patients, as they let it out: {value}",
        f"- trained at: {took}" + (f"; without {', '.join(run.without)}" if run.without else ""),
        "- what is personal to a site is not in this file: it has never left the site",
        *(f"- privacy: {sentence}" for sentence in privacy),
        "- for research; not a medical device",
    )
    return "\n".join(lines) + "\n"
