"""A study that an operator hands in: checked, given a run and its folder, put in the queue."""

import json
import re
import sqlite3
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from wardround.common.errors import InputError, RunError, StudyError, known_names
from wardround.common.files.atomic import flush, make_private_folder, replace_file
from wardround.common.security.peers import read_peers
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.canary import is_canary, mark_canary
from wardround.server.scheduling.folder import STUDY_FILE, RunFolder
from wardround.server.scheduling.store import (
    NEXT_PLACE,
    QUEUED,
    RUN,
    RUNNING,
    RunRow,
    changing,
    get_run,
    select_runs,
)

LONGEST_STUDY = 2**20  # characters
_READERS: Mapping[str, Callable[[str], object]] = {"toml": tomllib.loads, "json": json.loads}


def read_study(text: str, form: str) -> Study:
    """Return the study that a text says.

    Args:
        form: ``toml`` or ``json``.

    Raises:
        StudyError: It is none.
        InputError: The form is unknown.
    """
    if form not in _READERS:
        raise InputError(known_names("form of a study", form, _READERS))
    if len(text) > LONGEST_STUDY:
        msg = f"the study has {len(text)} characters: at most {LONGEST_STUDY} are read."
        raise StudyError(msg)
    try:
        content = _READERS[form](text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        msg = f"the study is not {form.upper()}: {reason}. 'wardround study check' says more."
        raise StudyError(msg) from None
    if not isinstance(content, dict):
        msg = f"the study is no table of sections but a {type(content).__name__}: give all of it."
        raise StudyError(msg)
    return parse_study(content)


def submit_study(
    folder: Path,
    study: Study,
    sites: Sequence[str] = (),
    canary: bool = False,
    fill: Callable[[RunFolder], None] | None = None,
) -> RunRow:
    """Put a study in the queue; a run that is queued has its folder, whatever is killed.

    Args:
        folder: The server folder.
        sites: Whom the run is for; none for whoever is there.
        canary: Whether it is a canary round of the study; it may be beside the study itself.
        fill: Makes the run's folder, of a study that repeats another one's rounds.

    Raises:
        InputError: The study is queued or running, or sites never joined or are few; or a study
            that trains nothing, or masks its updates, has no canary.
        DataError: It masks its updates, and this server does not know the sites' keys.
        RunError: Database or folder cannot be written.
    """
    _refuse_masks(folder, study, canary)
    if study.study.repeats is not None and fill is None and not canary:
        msg = (
            "the study says [study.repeats], and its rounds would begin anew: 'wardround runs "
            "withdraw RUN --site SITE' submits such a study, with the commit it goes on from."
        )
        raise InputError(msg)
    if canary and study.statistics.ask:
        msg = "a study that asks for statistics trains nothing, so it has no canary: submit it."
        raise InputError(msg)
    with changing(folder) as connection:
        _refuse_twice(connection, study, folder, canary)
        _refuse_sites(connection, study, sites)
        row = _insert(connection, study, canary)
        try:
            if fill is not None:
                fill(RunFolder(folder, row.run))
            _write(RunFolder(folder, row.run), study, sites)
            if canary:
                mark_canary(RunFolder(folder, row.run).path)
        except OSError as error:
            msg = f"cannot write the run's folder ({error.strerror}): make room on the server."
            raise RunError(msg) from None
        return row


def _refuse_masks(folder: Path, study: Study, canary: bool) -> None:
    if not study.federation.secure_aggregation:
        return
    if canary:
        msg = "a canary sends an update in the clear, and the study masks its own: submit it."
        raise InputError(msg)
    read_peers(folder)


def _refuse_twice(connection: sqlite3.Connection, study: Study, folder: Path, canary: bool) -> None:
    under_way = [
        one
        for one in select_runs(
            connection, "digest = ? AND state IN (?, ?)", (study.digest, QUEUED, RUNNING)
        )
        if is_canary(RunFolder(folder, one.run).path) == canary
    ]
    if under_way:
        first = under_way[0]
        msg = (
            f"this study is {first.state} already, as run {first.run}: "
            "wait for that one, or stop it first."
        )
        raise InputError(msg)


def _refuse_sites(connection: sqlite3.Connection, study: Study, sites: Sequence[str]) -> None:
    if not sites:
        return
    members = {str(site) for (site,) in connection.execute("SELECT site FROM members")}
    for site in sites:
        if site not in members:
            raise InputError(known_names("site", site, members))
    needed = study.federation.minimum_sites
    if len(set(sites)) < needed:
        msg = (
            f"the study needs {needed} sites and is given {len(set(sites))}: "
            "name more, or lower federation.minimum_sites."
        )
        raise InputError(msg)


def _insert(connection: sqlite3.Connection, study: Study, canary: bool) -> RunRow:
    cursor = connection.execute(
        "INSERT INTO runs (run, study, digest, state, wanted, place, submitted, reason) "
        f"VALUES ('', ?, ?, ?, ?, {NEXT_PLACE}, ?, '')",
        (study.name, study.digest, QUEUED, RUN, time.time()),
    )
    run = f"{_slug(study.name)}-{'canary-' * canary}{cursor.lastrowid}"
    connection.execute("UPDATE runs SET run = ? WHERE number = ?", (run, cursor.lastrowid))
    return get_run(connection, run)


def _slug(name: str) -> str:
    """Return a study's name as part of a folder's: small letters, digits and hyphens."""
    plain = normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()  # ö becomes o
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "study"


def _write(run: RunFolder, study: Study, sites: Sequence[str]) -> None:
    make_private_folder(run.path)
    replace_file(run.path / STUDY_FILE, study.to_toml().encode())
    run.put_wanted_sites(tuple(sites))
    flush(run.path.parent)
    flush(run.path.parent.parent)
