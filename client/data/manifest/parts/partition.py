"""Who is trained on and who is tested on: patients, not images, and for good.

Where the manifest does not say, a patient's part is drawn when a study first finds the patient
here, and written in the site folder. No later study, whatever its name or shares, moves anybody.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wardround.client.data.manifest.examination import SPLITS, Examination, SplitName
from wardround.client.data.manifest.parts.allocation import draw_parts, shares_of, stratify
from wardround.client.data.manifest.parts.written_parts import (
    KEY_BYTES,
    PARTS_FOLDER,
    WrittenParts,
    has_answered,
    parts_held,
    read_parts,
    write_parts,
)
from wardround.client.policy.policy import is_simulated
from wardround.client.site.folder import Site
from wardround.common.errors import DataError
from wardround.common.study.study import Study


class EmptyPartError(DataError):
    """A part that the study asks for has no patient.

    Args:
        part: Which.
    """

    def __init__(self, message: str, part: SplitName) -> None:
        super().__init__(message)
        self.part = part


@dataclass(frozen=True, slots=True)
class Partition:
    """The examinations of a site by part.

    Attributes:
        parts: Each part's examinations, in the manifest's order.
        notes: Sentences for whoever works at the site; they name nobody.
    """

    parts: Mapping[SplitName, tuple[Examination, ...]]
    notes: tuple[str, ...] = ()


def partition_patients(
    examinations: Sequence[Examination], study: Study, site: Site, keeps: bool = True
) -> Partition:
    """Return the examinations of each part, and write down whose part was not written yet.

    The manifest's column ``split`` goes before what is written, and that before a draw.

    Args:
        keeps: Whether new parts are written down. Whoever only looks at what a study would find
            leaves the site folder as it is.

    Raises:
        DataError: A part that the study asks for has no patient; nothing is written then. Or what
            is written is damaged, or cannot be written.
    """
    if (site.folder / PARTS_FOLDER / "forgotten.jsonl").exists():
        from wardround.client.data.manifest.parts.forgetting import require_nobody_forgotten

        require_nobody_forgotten(site.folder, (one.patient for one in examinations))
    written, simulated = read_parts(site.folder), is_simulated(site.folder)
    found = _Assigning(written or _begin(site, study), examinations, study, site.is_tolerant)
    if not keeps or found.written is written:
        return found.partition()
    with parts_held(site.folder):  # another process may have been first
        now = read_parts(site.folder)
        if now != written:
            found = _Assigning(now or _begin(site, study), examinations, study, site.is_tolerant)
        partition = found.partition()
        if found.written is not now:
            write_parts(site.folder, found.written, durable=not simulated)
    return partition


def new_and_old(
    examinations: Sequence[Examination], study: Study
) -> tuple[Sequence[Examination], Sequence[Examination]]:
    """Return the training examinations, and old ones that are not trained on, as the study says.

    Raises:
        DataError: There are none to train on.
    """
    held = study.continual
    if held is None or held.method == "replay":
        return examinations, ()
    new = [one for one in examinations if one.wave == held.wave]
    if not new:
        msg = (
            f"the study trains on rows of wave {held.wave}, and no training row of the manifest "
            f"is of it: write {held.wave} in the column wave of what has come since, or stay out "
            "of this study."
        )
        raise DataError(msg)
    return new, [one for one in examinations if one.wave < held.wave]


def simulated_key(study: Study, site_name: str) -> bytes:
    """Return the key of a simulated site, so that the same seed draws the same patients again."""
    words = f"wardround split\0{study.simulation.seed}\0{site_name}"
    return hashlib.sha256(words.encode()).digest()


def _begin(site: Site, study: Study) -> WrittenParts:
    """Return what a site writes first: its key."""
    if is_simulated(site.folder):
        return WrittenParts(simulated_key(study, site.name))
    return WrittenParts(secrets.token_bytes(KEY_BYTES), has_answered(site.folder))


class _Assigning:
    """Gives each patient a part: the manifest's, or the written one, or one that is drawn.

    Attributes:
        written: What was written, and what has to be added.
    """

    def __init__(
        self,
        written: WrittenParts,
        examinations: Sequence[Examination],
        study: Study,
        may_be_empty: bool,
    ) -> None:
        self._examinations, self._study = examinations, study
        self._shares = shares_of(study)
        self._named = any(examination.split for examination in examinations)
        self._hash_of = {e.patient: "" for e in examinations}
        self._hash_of = {patient: written.hash_of(patient) for patient in self._hash_of}
        self._known = {hash_ for hash_ in self._hash_of.values() if hash_ in written.part_of}
        self._may_be_empty = may_be_empty
        # A tolerant site may have patients who name no split beside others who do: they are drawn.
        self.written = self._drawn(self._as_named(written) if self._named else written)

    def partition(self) -> Partition:
        """Return the examinations by part.

        Raises:
            DataError: A part that the study asks for has no patient.
        """
        parts: dict[SplitName, list[Examination]] = {part: [] for part in SPLITS}
        for examination in self._examinations:
            hash_ = self._hash_of[examination.patient]
            parts[self.written.part_of[hash_]].append(examination)
        self._check(parts)
        notes = [*self._moved(), *self._other_shares()]
        for part in SPLITS:
            if parts[part] and not self._shares[part] and not self._named:
                notes.append(
                    f"{len({e.patient for e in parts[part]})} {part} patients are left out: the "
                    "study asks for none, and they keep the part that another gave them"
                )
                parts[part] = []
        return Partition({part: tuple(listed) for part, listed in parts.items()}, tuple(notes))

    def _as_named(self, written: WrittenParts) -> WrittenParts:
        """Return what is written with what the manifest says."""
        given = {self._hash_of[e.patient]: e.split for e in self._examinations if e.split}
        new = {hash_: part for hash_, part in given.items() if written.part_of.get(hash_) != part}
        return written.with_line("manifest", self._study.digest, self._shares, new)

    def _drawn(self, written: WrittenParts) -> WrittenParts:
        """Return what is written with a draw of those who are not."""
        unknown = [
            (hash_, e.label)
            for e in self._examinations
            if (hash_ := self._hash_of[e.patient]) not in written.part_of
        ]
        known = written.part_of.keys() & self._hash_of.values()
        held = {written.part_of[hash_] for hash_ in known}
        lacking = [part for part in SPLITS if part not in held]
        strata = stratify(unknown, self._study)
        given = draw_parts(strata, self._shares, written.key, lacking)
        return written.with_line("draw", self._study.digest, self._shares, given)

    def _moved(self) -> list[str]:
        """Return a sentence where patients were once in another part."""
        part_of, former = self.written.part_of, self.written.former
        moved = [hash_ for hash_ in self._hash_of.values() if hash_ in former]
        if not moved:
            return []
        trained = sum(part_of[one] != "train" and "train" in former[one] for one in moved)
        return [
            f"the column split has moved {len(moved)} patients to another part, {trained} of them "
            "out of training: what is measured on these flatters models that were trained on "
            "them, and what is spent on any part of this site counts for all of its patients"
        ]

    def _other_shares(self) -> list[str]:
        """Return a sentence where patients were drawn with other shares than the study's."""
        own = (self._shares["train"], self._shares["validation"], self._shares["test"])
        if self._named or not self._known or self.written.drawn_with() <= {own}:
            return []
        return [
            f"the study asks for {own[1]:.0%} of the patients for validation and {own[2]:.0%} "
            f"for testing; the {len(self._known)} whom the site knew before keep their parts, "
            "which other shares may have given them"
        ]

    def _check(self, parts: Mapping[SplitName, Sequence[Examination]]) -> None:
        for part in SPLITS:
            if self._shares[part] and not parts[part] and not self._may_be_empty:
                raise EmptyPartError(self._refusal(part), part)

    def _refusal(self, part: SplitName) -> str:
        patients = len(self._hash_of)
        zero = "" if part == "train" else f", or have the study set evaluation.{part}_fraction = 0"
        if self._named:
            return (
                f"none of the {patients} patients of the manifest is in {part}: write {part} in "
                f"the column split of some patients{zero}."
            )
        why = "they keep the parts that they were given before" if self._known else "too few"
        return (
            f"none of the {patients} patients is in {part} ({why}), whose share is "
            f"{self._shares[part]:.0%}: give the manifest a column split that puts some patients "
            f"in {part}, or add patients{zero}."
        )
