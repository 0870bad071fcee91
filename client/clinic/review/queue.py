"""A queue of cases for readers: the least sure ones and, on the same budget, as many by lot.

The reader's list does not say which is which: whoever knew would look harder at the ones that were
chosen. The queue itself, with arms and scores, lies in the site folder.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from wardround.client.clinic.review.cases import Case, CaseList
from wardround.client.clinic.review.opinions import Committee, Opinions
from wardround.client.clinic.review.scores import (
    SCORES,
    Floats,
    check_probabilities,
    check_scores,
)
from wardround.client.clinic.review.selection import by_lot, by_score, spread_out
from wardround.client.site.folder import REVIEW_FOLDER, Site
from wardround.common.errors import DataError, InputError, known_names
from wardround.common.files.atomic import create_file, make_private_folder
from wardround.common.models.contract import study_content
from wardround.common.statistics.decisions.recalibration import (
    fit_temperature,
    logits_of_scores,
    temperature_sums,
    with_temperature,
)
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

QUEUES = "queues"
CHOSEN, DRAWN = "chosen", "random"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_FEWEST_HELD_OUT = 10  # labelled validation cases; with fewer a temperature is a guess


@dataclass(frozen=True, slots=True)
class Wish:
    """What a queue is to be.

    Attributes:
        name: Small letters, digits and dashes.
        by: A key of SCORES, or ``random`` for the control arm alone.
        budget: Cases in each arm; one that is in both is read once.
        is_spread: Whether the chosen ones are spread out among the least sure.
        has_control: Whether as many are drawn by lot.
        again: Whether cases that somebody has read may be in it.
    """

    name: str
    by: str = "entropy"
    budget: int = 20
    is_spread: bool = True
    has_control: bool = True
    again: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A case in a queue.

    Attributes:
        place: How a person finds it: a list and its row.
        arms: ``chosen``, ``random`` or both.
        score: NaN-free; None for a queue by lot alone.
        own: What the list said when the queue was made.
        predicted: The most probable class; "" of a segmentation, of several at once, or by lot.
    """

    case: str
    place: str
    arms: tuple[str, ...]
    score: float | None
    own: str
    predicted: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as it lies in the site folder.

    Attributes:
        study: As text, from which it is read again.
        models: Digests of those that were asked.
        entries: In the order in which they are read, which tells no arm.
        temperature: By which probabilities were divided; None where none was fitted here.
        notes: Sentences for whoever made it.
    """

    name: str
    by: str
    budget: int
    made: str
    study: Mapping[str, object]
    models: tuple[str, ...]
    entries: tuple[Entry, ...]
    temperature: float | None = None
    notes: tuple[str, ...] = ()

    def read_study(self) -> Study:
        """Return the study whose classes readers are asked about."""
        return parse_study(json.loads(json.dumps(self.study)))

    def arm(self, name: str) -> tuple[Entry, ...]:
        """Return the cases of an arm."""
        return tuple(one for one in self.entries if name in one.arms)


_QUEUE = TypeAdapter(Queue)


def make_queue(listed: CaseList, committee: Committee | None, study: Study, wish: Wish) -> Queue:
    """Return a queue of training patients' cases.

    Args:
        listed: The site's cases.
        committee: The models; None only for a queue by lot.

    Raises:
        InputError: There are no cases, or the models rank none.
    """
    _check_wish(wish, committee)
    read = {one.case for one in listed.corrections.lines if one.column == study.task.column}
    known = list(listed.by_id().values())
    open_cases = [
        one for one in known if one.part == "train" and (wish.again or one.id not in read)
    ]
    if not open_cases:
        msg = (
            f"none of the {len(known)} cases is left to be read: validation and test patients are "
            f"not shown, and {len(read)} cases were read before (--again shows them again)."
        )
        raise InputError(msg)
    found = _scored(open_cases, known, committee, study, wish)
    cases, scores = found.cases, found.scores
    ids = [one.id for one in cases]
    arms = _arms(found, ids, listed.key, wish)
    picked = sorted(arms[CHOSEN] | arms[DRAWN])
    shown = by_lot([ids[at] for at in picked], listed.key, f"shown {wish.name}")
    entries = tuple(
        Entry(
            ids[at],
            listed.place(cases[at]),
            tuple(arm for arm, places in arms.items() if at in places),
            None if scores is None else float(scores[at]),
            cases[at].own,
            found.predicted[at] if found.predicted else "",
        )
        for at in (picked[place] for place in shown)
    )
    models = () if committee is None else tuple(one.digest for one in committee.predictors)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return Queue(
        wish.name,
        wish.by,
        wish.budget,
        made,
        study_content(study),
        models,
        entries,
        found.temperature,
        (*found.notes, *_unusable_note(listed), *_private_note(study)),
    )


def _arms(found: "_Scored", ids: Sequence[str], key: bytes, wish: Wish) -> dict[str, set[int]]:
    """Return the places of the cases of each arm: chosen by score, and drawn by lot."""
    drawn = by_lot(ids, key, f"random {wish.name}")[: wish.budget]
    chosen: list[int] = []
    if found.scores is not None:
        order = by_score(found.scores, ids, key)
        if wish.is_spread and found.features is not None:
            order = spread_out(found.features, order, wish.budget)
        chosen = order[: wish.budget]
        drawn = drawn if wish.has_control else []
    return {CHOSEN: set(chosen), DRAWN: set(drawn)}


def _check_wish(wish: Wish, committee: Committee | None) -> None:
    if not _NAME.fullmatch(wish.name):
        msg = f"the queue's name {wish.name!r}: use small letters, digits and dashes, at most 40."
        raise InputError(msg)
    if wish.by != "random" and wish.by not in SCORES:
        raise InputError(known_names("way of choosing", wish.by, (*SCORES, "random")))
    if wish.by != "random" and committee is None:
        msg = f"--by {wish.by} asks a model: give --model, or use --by random."
        raise InputError(msg)
    if wish.budget < 1:
        msg = f"a budget of {wish.budget} shows nobody: give 1 or more."
        raise InputError(msg)


def _unusable_note(listed: CaseList) -> tuple[str, ...]:
    if not listed.unusable:
        return ()
    return (f"{listed.unusable} rows of unlabelled.csv name no patient or no image: left out",)


def _private_note(study: Study) -> tuple[str, ...]:
    if study.privacy.mode == "none":
        return ()
    return (
        "the study protects its patients: a patient who is there or not can move one other into or "
        "out of a queue, and with it out of the training, so that two patients depend on one",
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    cases: Sequence[Case]
    scores: Floats | None = None
    features: Floats | None = None
    temperature: float | None = None
    predicted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _scored(
    cases: Sequence[Case],
    known: Sequence[Case],
    committee: Committee | None,
    study: Study,
    wish: Wish,
) -> _Scored:
    if committee is None or wish.by == "random":
        return _Scored(cases)
    said = committee.ask(cases)
    notes = [f"{count} cases are left out: {reason}" for reason, count in said.left_out.items()]
    if said.scores is not None:
        if said.nothing_found:
            notes.append(f"in {said.nothing_found} cases nothing was found, which counts as sure")
        check_scores(said.scores)
        return _Scored(said.cases, said.scores, said.features, notes=tuple(notes))
    if said.probabilities is None:
        msg = "a committee says probabilities or scores"
        raise TypeError(msg)
    multi_label, temperature = study.data.multi_label, None
    check_probabilities(said.probabilities, multi_label)
    members = said.probabilities
    if not committee.is_calibrated:
        temperature, note = _temperature(known, committee, study)
        notes.append(note)
        if temperature is not None:
            members = np.stack([with_temperature(one, temperature, multi_label) for one in members])
    scores = SCORES[wish.by](members, multi_label)
    check_scores(scores)
    best = members.mean(axis=0).argmax(axis=1).tolist()
    predicted = () if multi_label else tuple(study.data.classes[at] for at in best)
    return _Scored(said.cases, scores, said.features, temperature, predicted, tuple(notes))


def _temperature(
    known: Sequence[Case], committee: Committee, study: Study
) -> tuple[float | None, str]:
    """Return the temperature that the site's labelled validation cases ask for, and a sentence."""
    held_out = [
        one for one in known if one.part == "validation" and one.examination.label is not None
    ]
    if len(held_out) < _FEWEST_HELD_OUT:
        return None, (
            f"the model is not calibrated, and {len(held_out)} labelled validation cases are too "
            "few to do it here"
        )
    said: Opinions = committee.ask(held_out)
    if said.probabilities is None:
        return None, "masks are not calibrated"
    truth = _truth(said.cases, study)
    logits = logits_of_scores(said.probabilities.mean(axis=0), study.data.multi_label)
    cases = truth.sum(axis=0).astype(np.float64)
    if study.data.multi_label:
        cases = np.stack([len(truth) - cases, cases], axis=1)
    fit = fit_temperature(
        lambda numbers: temperature_sums(logits, truth, float(numbers[0]), study.data.multi_label),
        cases,
    )
    if not fit.is_usable:
        return None, f"the model is not calibrated here: {fit.trouble}"
    value = fit.values[0]
    return value, f"calibrated on {len(truth)} validation cases, temperature {value:.3g}"


def _truth(
    cases: Sequence[Case], study: Study
) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    truth = np.zeros((len(cases), study.class_count), dtype=np.bool_)
    for at, one in enumerate(cases):
        label = one.examination.label or ()
        if study.data.multi_label:
            truth[at] = np.array(label) > 0
        else:
            truth[at, int(label[0])] = True
    return truth


def save_queue(site: Site, queue: Queue) -> Path:
    """Write a queue and the reader's list into the site folder; return the list's place.

    Raises:
        InputError: There is one of this name.
        DataError: It cannot be written.
    """
    folder = site.folder / REVIEW_FOLDER / QUEUES
    try:
        make_private_folder(folder)
        create_file(folder / f"{queue.name}.json", json.dumps(asdict(queue), indent=1).encode())
        place = folder / f"{queue.name}.csv"
        place.unlink(missing_ok=True)
        create_file(place, _readers_list(queue).encode())
    except FileExistsError:
        msg = f"there is a queue {queue.name!r} already: give another name."
        raise InputError(msg) from None
    except OSError as error:
        msg = f"cannot write {folder} ({error.strerror}): make room, or make it writable."
        raise DataError(msg) from None
    return place


def read_queue(site: Site, name: str = "") -> Queue:
    """Return a queue of a site; without a name the only one that it has.

    Raises:
        InputError: There is none, or several and no name.
        DataError: It is damaged.
    """
    folder = site.folder / REVIEW_FOLDER / QUEUES
    known = sorted(path.stem for path in folder.glob("*.json"))
    if not known:
        msg = f"{site.folder} has no queue: make one with 'wardround site review queue'."
        raise InputError(msg)
    if not name and len(known) > 1:
        msg = f"the site has {len(known)} queues: give --queue NAME, one of {', '.join(known)}."
        raise InputError(msg)
    name = name or known[0]
    if name not in known:
        raise InputError(known_names("queue", name, known))
    path = folder / f"{name}.json"
    try:
        return _QUEUE.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        msg = f"the queue {path} cannot be read: put it back from a backup, or make another."
        raise DataError(msg) from None


def _readers_list(queue: Queue) -> str:
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["case", "examination", "label"])
    rows.writerows([one.case, one.place, ""] for one in queue.entries)
    return stream.getvalue()
