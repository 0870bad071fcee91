"""What a site keeps of one model's monitoring: a folder of its own, for its owner alone.

===================  =============================================================================
``reference.json``   which model, which kind of period, how many false alarms a year
``reference.jsonl``  a line a reference case
``cases.jsonl``      a line a case, with its period; only ever appended to
``truths.jsonl``     labels that came later, by the case's key; only ever appended to
``periods.jsonl``    what was found in each period, and what a person closed: a hash chain
``secret``           the key that makes the cases' keys of file names; it tells nothing by itself
===================  =============================================================================

Nothing in it is a patient's name or number, a file's name or a pixel. Nothing of it leaves.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from wardround.client.clinic.monitoring.case import Case, case_from_json
from wardround.client.clinic.monitoring.periods import Every, first_day
from wardround.client.site.folder import Site
from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import (
    create_file,
    make_private_folder,
    replace_file,
)
from wardround.common.files.json_lines import (
    NO_HASH,
    BrokenLineError,
    append_after_torn,
    from_line,
    read_json_lines,
    split_lines,
    to_line,
)
from wardround.common.files.lock import held_alone

FOLDER = "monitoring"
_SHOWN = 16  # digits of a model's digest
_KEY_DIGITS = 32
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a site is held against.

    Attributes:
        model: The name of the model.
        digest: Of its folder.
        folder: Where it lay, for who adds images without naming it.
        study: The name of its study.
        task: Of the study.
        classes: Of the study.
        multi_label: Whether they go together.
        every: The kind of period.
        alarms_a_year: How many false alarms are expected in a year without any change.
        created: ISO 8601, UTC.
    """

    model: str
    digest: str
    folder: str
    study: str
    task: str
    classes: tuple[str, ...]
    multi_label: bool
    every: Every
    alarms_a_year: float
    created: str


_REFERENCE = TypeAdapter(Reference)


@dataclass(frozen=True, slots=True)
class Truth:
    """A label that came later.

    Attributes:
        key: Of the case.
        classes: Those that it has, for a task with classes.
        value: The number, for a task without.
    """

    key: str
    classes: tuple[str, ...] = ()
    value: float | None = None


class MonitorFolder:
    """The folder of one model's monitoring at a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reference = _read_reference(folder)

    def reference_cases(self) -> tuple[Case, ...]:
        """Return the cases that every period is held against."""
        return tuple(self._read("reference.jsonl", case_from_json))

    def cases(self) -> dict[str, list[Case]]:
        """Return the cases of each period, in the order in which they came."""
        found: dict[str, list[Case]] = {}
        for period, case in self._read("cases.jsonl", self._case_of_period):
            found.setdefault(period, []).append(case)
        return found

    def truths(self) -> dict[str, Truth]:
        """Return the labels by the key of their case; a later one goes before an earlier one."""
        return {truth.key: truth for truth in self._read("truths.jsonl", _truth_from_json)}

    def entries(self) -> list[dict[str, Any]]:
        """Return what was found in each period and what a person closed, in its order.

        Raises:
            RunError: The table was changed.
        """
        return self._read_chain()[0]

    def add_cases(self, period: str, cases: Sequence[Case]) -> None:
        """Write cases of a period."""
        _append(
            self.folder / "cases.jsonl", ({"period": period, "case": c.as_json()} for c in cases)
        )

    def add_truths(self, truths: Iterable[Truth]) -> None:
        """Write labels."""
        _append(self.folder / "truths.jsonl", map(asdict, truths))

    def add_entry(self, content: Mapping[str, Any]) -> None:
        """Write what was found, for good."""
        entries, previous = self._read_chain()
        line, _ = to_line(content, len(entries) + 1, previous)
        append_after_torn(self.folder / "periods.jsonl", line + b"\n")

    def key_of(self, text: str) -> str:
        """Return the key of a file or a series, of which nobody reads its name.

        Raises:
            InputError: The folder's secret cannot be read.
        """
        try:
            secret = (self.folder / "secret").read_bytes()
        except OSError:
            raise _damaged(self.folder / "secret") from None
        return keyed(secret, text)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder while something is looked at and written.

        Raises:
            InputError: Another reference was set meanwhile, by which nothing of this one counts.
        """
        with held_alone(self.folder.parent), held_alone(self.folder / "lock"):
            if _read_reference(self.folder) != self.reference:
                msg = "another reference was set meanwhile: type the command again."
                raise InputError(msg)
            yield

    def _read(self, name: str, value_of: Callable[[Any], _Value]) -> list[_Value]:
        path = self.folder / name
        try:
            return [value_of(line) for line in read_json_lines(path)]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError):
            raise _damaged(path) from None

    def _case_of_period(self, line: Mapping[str, Any]) -> tuple[str, Case]:
        first_day(line["period"], self.reference.every)  # a name that is none would not sort
        return line["period"], case_from_json(line["case"])

    def _read_chain(self) -> tuple[list[dict[str, Any]], str]:
        path = self.folder / "periods.jsonl"
        try:
            lines, _ = split_lines(path.read_bytes() if path.exists() else b"")
        except OSError:
            raise _damaged(path) from None
        entries, previous = [], NO_HASH
        for number, line in enumerate(lines, start=1):
            try:
                content, previous = from_line(line, number, previous)
            except BrokenLineError as error:
                msg = (
                    f"line {number} of {path} {error}: restore the file from a backup, or set a "
                    "new reference (wardround site monitor reference)."
                )
                raise RunError(msg) from None
            entries.append(content)
        return entries, previous


def begin_monitor(site: Site, reference: Reference, cases: Sequence[Case], secret: bytes) -> Path:
    """Write the folder of a new reference; what was there for this model is kept beside it.

    Args:
        secret: With which the keys of the cases were made.
    """
    folder = site.state_folder / FOLDER / reference.digest[:_SHOWN]
    make_private_folder(folder.parent)
    with held_alone(folder.parent):
        reference = replace(reference, created=_after_all(site, reference.created))
        stamp = reference.created.translate(str.maketrans("", "", "-:+"))
        for one in (folder, *(path.parent for path in _references(site) if not _is_read(path))):
            if one.exists():
                one.rename(one.with_name(f"{one.name}.until-{stamp}"))
        make_private_folder(folder)
        create_file(folder / "secret", secret)
        _append(folder / "reference.jsonl", (case.as_json() for case in cases))
        replace_file(folder / "reference.json", json.dumps(asdict(reference), indent=2) + "\n")
    return folder


def _is_read(path: Path) -> bool:
    """Return whether a reference can be read; one that cannot is put aside by the next."""
    try:
        _read_reference(path.parent)
    except InputError:
        return False
    return True


def _after_all(site: Site, created: str) -> str:
    """Return a time after that of every reference: the last that was set is the one that counts.

    A clock that stood ahead would let one count for years.
    """
    known = [_read_reference(path.parent) for path in _references(site) if _is_read(path)]
    last = max((one.created for one in known), default="")
    if created > last:
        return created
    return (datetime.fromisoformat(last) + timedelta(microseconds=1)).isoformat()


def new_secret() -> bytes:
    """Return a key for the keys of cases."""
    return secrets.token_bytes(32)


def keyed(secret: bytes, text: str) -> str:
    """Return a key as :meth:`MonitorFolder.key_of` does, before there is a folder."""
    digest = hmac.new(secret, text.encode(errors="surrogatepass"), hashlib.sha256)
    return digest.hexdigest()[:_KEY_DIGITS]


def open_monitor(site: Site, digest: str = "", name: str = "") -> MonitorFolder:
    """Open the monitoring of a model, or that of the reference that was set last.

    Args:
        digest: Of the model that is asked for; "" for the last.
        name: Of that model, for the refusal.

    Raises:
        InputError: There is no reference, or none of this model.
    """
    own = site.state_folder / FOLDER / digest[:_SHOWN]
    if digest and (own / "reference.json").exists():  # whatever became of the others
        monitor = MonitorFolder(own)
        if monitor.reference.digest == digest:
            return monitor
    known = [MonitorFolder(path.parent) for path in _references(site)]
    if not known:
        msg = (
            f"{site.folder} has no reference to be held against: set one with 'wardround site "
            f"monitor reference {site.folder} --model MODEL'."
        )
        raise InputError(msg)
    last = max(known, key=lambda one: one.reference.created)
    if not digest:
        return last
    msg = (
        f"the reference of {site.folder} was set with the model {last.reference.model!r} "
        f"({last.reference.digest[:8]}), and this is {name!r} ({digest[:8]}): numbers of two "
        "models cannot be compared. Set a reference with this one: wardround site monitor "
        "reference."
    )
    raise InputError(msg)


def _references(site: Site) -> list[Path]:
    found = (site.state_folder / FOLDER).glob("*/reference.json")
    return [path for path in found if "." not in path.parent.name]


def _read_reference(folder: Path) -> Reference:
    path = folder / "reference.json"
    try:
        return _REFERENCE.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        raise _damaged(path) from None


def _truth_from_json(line: Mapping[str, Any]) -> Truth:
    value = None if line["value"] is None else float(line["value"])
    return Truth(str(line["key"]), tuple(map(str, line["classes"])), value)


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged: restore it from a backup, or set a new reference "
        "(wardround site monitor reference)."
    )


def _append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    append_after_torn(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
