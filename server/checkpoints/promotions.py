"""Which model is in use: a shelf of model folders, and a record that is only ever appended to.

``promotions.jsonl`` of a shelf is a chain of hashes, a line a promotion or a rollback; the last one
names the model in use. A rollback is a line too: what was in use, when and until when, stays told.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from wardround.common.errors import InputError
from wardround.common.files.atomic import open_or_make
from wardround.common.files.json_lines import (
    NO_HASH,
    BrokenLineError,
    append_line,
    from_line,
    split_lines,
    to_line,
)
from wardround.common.files.lock import held_alone
from wardround.common.models.model_folder import ModelFolder, open_model_folder
from wardround.common.runtime.fields import OfForm
from wardround.common.study.study import Study

RECORD_FILE, MODELS_FOLDER = "promotions.jsonl", "models"
ALL_SITES = "all sites"
ENDLESS = 1e9  # the reach of a fall of which nobody can tell anything
_SHOWN = 16  # digits of a digest in a folder's name
_Digest = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]


@dataclass(frozen=True, slots=True)
class SiteFall:
    """How much worse a model is than the one before it, at one site or at all together.

    Attributes:
        site: The site's name, or ``all sites``.
        wave: Of the data; 0 of all waves together.
        before: The study's metric of the model before.
        now: The same of this model.
        fall: Of the study's metric; positive is worse.
        margin: How far it may fall.
        split: Of the patients on whom both were measured.
        reach: Half of the 95 % interval of the fall, which is that of its patients; None where
            nobody tells it.
        patients: How many there are, where that is told.
    """

    site: str
    wave: int
    before: float
    now: float
    fall: float
    margin: float
    split: str = "test"
    reach: float | None = None
    patients: int | None = None

    @property
    def is_beyond(self) -> bool:
        """Whether it falls further than it may for certain, or is no number."""
        return not self.fall - (self.reach or 0.0) <= self.margin

    @property
    def is_doubtful(self) -> bool:
        """Whether it falls further than it may, and so few patients cannot tell."""
        return self.fall > self.margin and not self.is_beyond

    def words(self) -> str:
        """Return where, from what to what, how far it may, and how sure that is."""
        on = f"wave {self.wave}" if self.wave else "all waves"
        of = "" if self.patients is None else f" of {self.patients} patients"
        if self.reach is None:
            sure = ""
        elif self.reach >= ENDLESS:
            sure = " (nobody can tell)"
        else:
            sure = f" ({-self.fall - self.reach:+.3f} to {-self.fall + self.reach:+.3f})"
        doubt = "; too few patients to tell" if self.is_doubtful else ""
        return (
            f"{self.site}, {on} ({self.split}{of}): {self.before:.3f} to {self.now:.3f}, "
            f"{-self.fall:+.3f}{sure}, may fall by {self.margin:g}{doubt}"
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """One line of the record: a model that came into use.

    Attributes:
        kind: ``promote`` or ``rollback``.
        model: The digest of its model folder.
        study: Of the study that made it.
        parent: The digest of the model folder that was in use before; "" of the first.
        time: UTC, ISO 8601.
        falls: What it was judged by; none of the first and of a rollback.
    """

    kind: Literal["promote", "rollback"]
    model: _Digest
    study: _Digest
    parent: str
    time: str
    falls: Annotated[tuple[SiteFall, ...], Field(max_length=100_000)] = ()


_PLACED = TypeAdapter(Placed)


class Shelf:
    """The models of one study's line, and which of them is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self) -> tuple[Placed, ...]:
        """Return what was ever in use, the oldest first.

        Raises:
            InputError: A line is not what was written there.
        """
        return tuple(placed for placed, _ in self._lines())

    @property
    def current(self) -> Placed | None:
        """What is in use; None on an empty shelf."""
        record = self.record()
        return record[-1] if record else None

    def model_path(self, digest: str) -> Path:
        """Return the folder of a model on the shelf."""
        return self.folder / MODELS_FOLDER / digest[:_SHOWN]

    def promote(self, model: ModelFolder, falls: Sequence[SiteFall]) -> Placed:
        """Put a model into use, if it goes on from the one that is, and no site falls too far.

        A repeat without who left, of a study of the shelf's, replaces whatever is in use.

        Raises:
            InputError: It does not, or one does; nothing changes.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with held_alone(self.folder):
                before = self.current
                self._require_next(model, before)
                require_no_fall(falls, model)
                self._keep(model)
                parent = "" if before is None else before.model
                return self._append("promote", model.digest, model.study.digest, parent, falls)
        except OSError as error:
            msg = f"cannot use the shelf {self.folder} ({error.strerror}): choose another folder."
            raise InputError(msg) from None

    def roll_back(self) -> Placed:
        """Put the model into use again that was in use before the present one.

        Raises:
            InputError: There is none, or its folder is damaged; nothing changes.
        """
        if not (self.folder / RECORD_FILE).exists():
            msg = f"{self.folder} holds no model in use: 'wardround runs promote' puts one there."
            raise InputError(msg)
        with held_alone(self.folder):
            record = self.record()
            promoted = next(
                (one for one in reversed(record) if self._is_promotion_of(one, record[-1])), None
            )
            if promoted is None or not promoted.parent:
                msg = "the model in use is the first of its line: there is none to go back to."
                raise InputError(msg)
            repeats = open_model_folder(self.model_path(record[-1].model)).study.study.repeats
            if repeats is not None:
                msg = (
                    "the model in use repeats rounds without a hospital or patients who left, and "
                    "the one before has them in it: there is none to go back to."
                )
                raise InputError(msg)
            earlier = next(one for one in record if one.model == promoted.parent)
            open_model_folder(self.model_path(earlier.model))
            return self._append("rollback", earlier.model, earlier.study, record[-1].model, ())

    @staticmethod
    def _is_promotion_of(one: Placed, last: Placed) -> bool:
        return one.kind == "promote" and one.model == last.model

    def _require_next(self, model: ModelFolder, before: Placed | None) -> None:
        held = model.study.continual
        if before is None:
            return
        if before.model == model.digest:
            msg = "this model is in use already."
            raise InputError(msg)
        repeats = model.study.study.repeats
        if repeats is not None and any(one.study == repeats.parent for one in self.record()):
            return  # one of the line was revoked: what is in use may have the same people in it
        now = open_model_folder(self.model_path(before.model))
        if held is None or held.model != now.contract.parameters:
            msg = (
                f"the model in use is {now.contract.name} of study {before.study[:_SHOWN]}, and "
                "this one does not go on from it: a model is held against the one that it "
                "replaces. Continue that run, or begin another shelf."
            )
            raise InputError(msg)

    def _keep(self, model: ModelFolder) -> None:
        place = self.model_path(model.digest)
        if not place.exists():
            part = place.with_name(f".{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(model.path, part)
            part.replace(place)
        if open_model_folder(place).digest != model.digest:
            msg = f"{place} holds another model: remove it."
            raise InputError(msg)

    def _append(
        self,
        kind: Literal["promote", "rollback"],
        model: str,
        study: str,
        parent: str,
        falls: Sequence[SiteFall],
    ) -> Placed:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        placed = Placed(kind, model, study, parent, now, tuple(falls))
        lines = self._lines()
        previous = lines[-1][1] if lines else NO_HASH
        content = json.loads(json.dumps(asdict(placed)))
        line, _ = to_line(content, len(lines), previous)
        descriptor = open_or_make(self.folder / RECORD_FILE, os.O_RDWR)
        try:
            _, torn = split_lines((self.folder / RECORD_FILE).read_bytes())
            length = os.fstat(descriptor).st_size - len(torn)
            append_line(descriptor, line + b"\n", length, durable=True)
            os.ftruncate(descriptor, length + len(line) + 1)
        finally:
            os.close(descriptor)
        return placed

    def _lines(self) -> list[tuple[Placed, str]]:
        path = self.folder / RECORD_FILE
        try:
            whole, _ = split_lines(path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            msg = f"cannot read {path} ({error.strerror}): use the account that wrote it."
            raise InputError(msg) from None
        found: list[tuple[Placed, str]] = []
        previous = NO_HASH
        for number, line in enumerate(whole):
            try:
                content, previous = from_line(line, number, previous)
                said = {k: v for k, v in content.items() if k not in ("number", "previous")}
                found.append((_PLACED.validate_python(said), previous))
            except (BrokenLineError, ValidationError):
                msg = (
                    f"line {number + 1} of {path} is not what was written there: put a copy back. "
                    "It says which model is in use."
                )
                raise InputError(msg) from None
        return found


def margin_of(study: Study, site: str) -> float:
    """Return how far a site's metric may fall for a promotion."""
    held = study.continual
    if held is None:
        return study.evaluation.margin
    usual = study.evaluation.margin if held.margin is None else held.margin
    return held.margins.get(site, usual)


def require_no_fall(falls: Sequence[SiteFall], model: ModelFolder) -> None:
    """Check that a model may replace the one that it goes on from.

    A site whose patients are too few to tell does not hold the model up, unless all sites together
    fall beyond the margin on the same patients: many doubtful falls make a certain one.

    Raises:
        InputError: Nobody measured both, or a site falls beyond its margin.
    """
    held = model.study.continual
    if held is None or held.parent is None:
        return
    sites = [one for one in falls if one.site != ALL_SITES]
    if not sites:
        msg = (
            "no site's metric of this model and of the one that it goes on from is known, so "
            "nobody can tell whether a site falls: measure validation or test patients in the "
            "study, or look at it by hand."
        )
        raise InputError(msg)
    if beyond := [one for one in sites if one.is_beyond]:
        listed = "; ".join(one.words() for one in beyond)
        msg = (
            f"the model is not promoted, for it falls beyond the margin at {len(beyond)} of "
            f"{len(sites)} places: {listed}. The model in use stays."
        )
        raise InputError(msg)
    doubtful = [one for one in sites if one.is_doubtful]
    together = {(one.wave, one.split): one for one in falls if one.site == ALL_SITES}
    for one in doubtful:
        of_all = together.get((one.wave, one.split))
        if of_all is not None and of_all.fall <= of_all.margin:
            continue
        whole = "what all sites have together is not known" if of_all is None else of_all.words()
        msg = (
            f"the model is not promoted: {one.words()}, and {whole}. The model in use stays; more "
            "patients to measure on could tell, or a wider continual.margins of that site."
        )
        raise InputError(msg)
