"""Pictures that are the same by their pixels, or nearly so by their lowest frequencies."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.onboarding.data_check.findings import Finding, found
from wardround.client.clinic.onboarding.data_check.looks import Look
from wardround.client.clinic.onboarding.data_check.subjects import Subject

MOST = 20_000  # examinations of which every two are compared: some seconds
_BITS = 4  # of 63 in which two pictures may differ
_CORRELATION = 0.995  # of the small pictures
_BLOCK = 512
Group = list[Subject]


def find_duplicates(subjects: Sequence[Subject], looks: Sequence[Look]) -> list[Finding]:
    """Return what is to be said of pictures that stand twice."""
    by_digest: dict[str, list[int]] = {}
    for place, look in enumerate(looks):
        if look.digest:
            by_digest.setdefault(look.digest, []).append(place)
    exact = [group for group in by_digest.values() if len(group) > 1]
    findings = _of_groups("the same image", [[subjects[n] for n in group] for group in exact])
    near = _near_pairs(looks)
    if near is None:
        fact = f"near pictures were not looked for: there are more than {MOST} examinations"
        return [*findings, Finding("near duplicates", "look", fact)]
    pairs = [[subjects[one], subjects[two]] for one, two in near]
    return [*findings, _of_pairs([p for p in pairs if p[0].patient != p[1].patient])]


def _of_groups(what: str, groups: Sequence[Group]) -> list[Finding]:
    torn = [g for g in groups if len({s.part for s in g if s.part}) > 1]
    patients = [g for g in groups if len({s.patient for s in g}) > 1 and g not in torn]
    labels = [g for g in groups if len({s.label for s in g}) > 1]
    own = [g for g in groups if g not in torn and g not in patients]
    findings = []
    if torn:
        fact = f"{len(torn)} images are trained on and tested on ({what} in two parts)"
        remedy = "keep one row of each, or write the same patient and split in all of them."
        findings.append(found("leakage", "fault", fact, remedy, _rows(torn)))
    if labels:
        fact = f"{len(labels)} images stand under different labels"
        findings.append(found("duplicates", "fault", fact, "keep the right row.", _rows(labels)))
    if patients:
        fact = f"{len(patients)} images stand under different patients"
        remedy = "keep one row, or write the same patient in all of them."
        findings.append(found("duplicates", "look", fact, remedy, _rows(patients)))
    if own:
        fact = f"{len(own)} images stand twice or more for one patient"
        findings.append(found("duplicates", "look", fact, "keep one row of each.", _rows(own)))
    return findings or [Finding("duplicates", "ok", "no image stands twice")]


def _of_pairs(pairs: Sequence[Group]) -> Finding:
    torn = [p for p in pairs if p[0].part and p[1].part and p[0].part != p[1].part]
    if not pairs:
        return Finding("near duplicates", "ok", "no two patients have nearly the same picture")
    fact = (
        f"{len(pairs)} pairs of patients have nearly the same picture, {len(torn)} of them in two "
        "parts"
    )
    remedy = "look at them: one picture cut, turned brighter or saved anew is one patient."
    return found("near duplicates", "look", fact, remedy, _rows(torn or pairs))


def _rows(groups: Sequence[Group]) -> list[int]:
    return [subject.row for group in groups for subject in group]


def _near_pairs(looks: Sequence[Look]) -> list[tuple[int, int]] | None:
    """Return pairs that differ in few bits, and whose small pictures go together."""
    places = [n for n, look in enumerate(looks) if look.digest]
    if len(places) > MOST:
        return None
    if not places:
        return []
    waves = np.stack([looks[n].waves for n in places])
    alike = waves.shape[1] - 2 * _BITS  # of signs multiplied and added up
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(places), _BLOCK):
        together = waves[start : start + _BLOCK] @ waves.T
        for one, two in np.argwhere(together >= alike).tolist():
            if start + one < two:
                pairs.append((places[start + one], places[two]))
    return [pair for pair in pairs if _go_together(looks[pair[0]], looks[pair[1]])]


def _go_together(one: Look, two: Look) -> bool:
    if one.digest == two.digest or one.small.shape != two.small.shape:
        return False
    return _correlation(one.small, two.small) >= _CORRELATION


def _correlation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    first, second = one - one.mean(), two - two.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size else 0.0
