"""The doctor's look into every image: is each file whole, and can the site's account read it?

A list of files says nothing of what is in them: one that was cut off in copying is found when a
study runs, weeks later. What was opened and has not changed since is not opened again: a line a
file in ``state/opened/files.jsonl``, by a hash of its name, readable by the owner alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import wardround
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.array_files import forget_arrays
from wardround.client.data.reading.readers import read_stored
from wardround.client.doctor.check import FaultError
from wardround.client.doctor.manifest import (
    NamedFile,
    files_named,
    read_site_table,
    rows_in_words,
)
from wardround.client.site.folder import Site
from wardround.common.errors import DataError
from wardround.common.files.account import owner_of
from wardround.common.files.atomic import make_private_folder, open_or_make, replace_file
from wardround.common.files.json_lines import read_json_lines

OPENED_FOLDER, OPENED_FILE = "opened", "files.jsonl"
Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many files were looked at, of how many."""
_NAME_DIGITS = 32
_AHEAD = 4  # files a thread that wait to be opened
_EMPTY = "the file is empty"


def check_images(site: Site, progress: Progress | None = None) -> str:
    """Whether each file that the manifest names can be opened; what was before, is believed.

    Raises:
        FaultError: Some cannot; says which rows, and no name.
    """
    table = read_site_table(site)
    named = [file for file in files_named(site, table) if file.state in ("there", "closed")]
    if not named:
        return "the manifest names no file that is there"
    rows: dict[Location, list[int]] = {}
    faults: dict[str, list[NamedFile]] = {}
    for file in named:
        if file.state == "closed":
            account = owner_of(site.folder).name
            faults.setdefault(f"the account {account} may not read the file", []).append(file)
        elif file.location is not None:
            rows.setdefault(file.location, []).append(file.row)
    opened = _Opened(site)
    for location, fault in opened.look(tuple(rows), progress or _nobody):
        if fault:
            found = [NamedFile(row, location, "there") for row in rows[location]]
            faults.setdefault(fault, []).extend(found)
    count = len({file.location for file in named})
    if faults:
        raise _refusal(faults, count)
    before = f", {opened.unchanged} of them not again" if opened.unchanged else ""
    return f"{count} files can be opened{before}"


def _refusal(faults: Mapping[str, Sequence[NamedFile]], count: int) -> FaultError:
    broken = len({file.location for files in faults.values() for file in files})
    told = "; ".join(
        f"{fact}, in {rows_in_words(sorted(file.row for file in files))}"
        for fact, files in ((_fact(fault), files) for fault, files in faults.items())
    )
    remedies = dict.fromkeys(_remedy(fault) for fault in faults)
    fact = f"{broken} of {count} files cannot be used: {told} of the manifest"
    return FaultError(fact=fact, remedy=" ".join(remedies))


def _fact(fault: str) -> str:
    return fault.partition(": ")[0]


def _remedy(fault: str) -> str:
    if "may not read" in fault:
        return "give the account the right to read them."
    if fault == _EMPTY:
        return "copy them anew, or take the rows out."
    return fault.partition(": ")[2] or "replace them."


def _nobody(done: int, count: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of a file: how it lay on the disk, and what was wrong with it."""

    state: str
    fault: str


class _Opened:
    """What was opened, kept line by line, so that a stop loses nothing.

    Attributes:
        unchanged: Files that were not opened again.
    """

    def __init__(self, site: Site) -> None:
        self._file = site.state_folder / OPENED_FOLDER / OPENED_FILE
        self._known = self._read()
        self.unchanged = 0

    def look(
        self, locations: Sequence[Location], progress: Progress
    ) -> Iterator[tuple[Location, str]]:
        """Yield each file with what is wrong with it, "" where nothing is."""
        names = {location: _name_of(location) for location in locations}
        kept: dict[str, _Seen] = {}
        todo: list[tuple[Location, str]] = []
        done = 0
        for location, name in names.items():
            state, seen = _state_of(location.path), self._known.get(name)
            # What was wrong may have been the disk: it is looked at again.
            if seen is None or not state or seen.state != state or seen.fault:
                todo.append((location, state))
                continue
            kept[name] = seen
            done += 1
            yield location, seen.fault
        self.unchanged = done
        progress(done, len(names))
        self._write(kept)
        descriptor = self._appending()
        try:
            for location, seen in _open_all(todo):
                if descriptor is not None:
                    os.write(descriptor, _line(names[location], seen))
                done += 1
                progress(done, len(names))
                yield location, seen.fault
        finally:
            if descriptor is not None:
                os.close(descriptor)
            forget_arrays()

    def _read(self) -> dict[str, _Seen]:
        known: dict[str, _Seen] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # then all are opened again
            head, *lines = read_json_lines(self._file)
            if head == _head():
                for line in lines:
                    known[line["file"]] = _Seen(str(line["state"]), str(line["fault"]))
        return known

    def _write(self, kept: Mapping[str, _Seen]) -> None:
        """Write anew what is still named: of who left the manifest, nothing stays."""
        lines = [json.dumps(_head()).encode() + b"\n", *(_line(n, s) for n, s in kept.items())]
        with suppress(OSError):  # another account asks: it only does not remember
            make_private_folder(self._file.parent)
            replace_file(self._file, b"".join(lines), durable=False)

    def _appending(self) -> int | None:
        try:
            return open_or_make(self._file, os.O_WRONLY | os.O_APPEND)
        except OSError:
            return None


def _head() -> dict[str, object]:
    """Return the first line: another version may read files in another way."""
    return {"format": 1, "version": wardround.__version__}


def _line(name: str, seen: _Seen) -> bytes:
    line = {"file": name, "state": seen.state, "fault": seen.fault}
    return json.dumps(line).encode() + b"\n"


def _name_of(location: Location) -> str:
    return hashlib.sha256(repr(location).encode()).hexdigest()[:_NAME_DIGITS]


def _state_of(path: Path) -> str:
    """Return how a file lies on the disk; of a folder, how its files do."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        facts = [(one.name, *_facts(one.stat())) for one in files]
    except OSError:
        return ""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:_NAME_DIGITS]


def _facts(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino


def _open_all(todo: Sequence[tuple[Location, str]]) -> Iterator[tuple[Location, _Seen]]:
    """Open files with as many threads as there are cores; what waits is dropped on Ctrl-C."""
    count = os.cpu_count() or 1
    threads = ThreadPoolExecutor(count)
    waiting: list[tuple[Location, str, Future[str]]] = []
    try:
        for location, state in todo:
            waiting.append((location, state, threads.submit(open_image, location)))
            if len(waiting) > count * _AHEAD:
                first, its_state, fault = waiting.pop(0)
                yield first, _Seen(its_state, fault.result())
        for location, state, fault in waiting:
            yield location, _Seen(state, fault.result())
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def open_image(location: Location) -> str:
    """Return what is wrong with a file, "" where it can be read whole."""
    path = location.path
    try:
        if path.is_file() and path.stat().st_size == 0:
            return _EMPTY
        if path.is_dir() and not any(path.iterdir()):
            return "the folder is empty: put the series there, or take the row out."
    except OSError as error:
        return f"the file cannot be looked at ({error.strerror}): look at the disk or the mount."
    faults = []
    volumes_first = path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz"))
    for dimensions in (3, 2) if volumes_first else (2, 3):
        try:
            read_stored(location, dimensions)
        except DataError as error:
            faults.append(str(error))
        else:
            return ""
    return faults[0]
