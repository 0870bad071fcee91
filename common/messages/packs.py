"""The evidence that leaves a site once: two exchanges, their contents, their checks.

In the first a site is sent the committed model, and answers with the study's packs. In the second
it is sent the model again with the merged histograms of scores, and answers with the squares of its
patients' placement values against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from wardround.common.errors import RunError
from wardround.common.flower.messages.content import arrays_of, configs_of, metrics_of
from wardround.common.messages.instructions import Instruction, pack_instruction
from wardround.common.metrics.packs.intervals import PlacementSums
from wardround.common.metrics.packs.registry import (
    Packs,
    check_arrays,
    pack_arrays,
    packs_of,
)
from wardround.common.metrics.packs.score_counts import MOST_OF_ALL, ScoreCounts
from wardround.common.metrics.task_sums import Arrays
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.schema import Model
from wardround.common.runtime.fields import FieldError, Fields
from wardround.common.study.study import Study

PACK = "evaluate.pack"
PLACEMENTS = "evaluate.placements"
RECORD, FACTS, MERGED = "pack", "facts", "merged"
PATIENTS, CELL, TELLS = "patients", "cell", "tells-"
_MOST_PATIENTS = 10**9
_MOST_CELL = 10**6


@dataclass(frozen=True, slots=True, eq=False)
class SitePacks:
    """A site's answer to the first exchange.

    Attributes:
        patients: Test patients, rounded down.
        cell: The smallest cell of the site's policy: what counts are multiples of; with 1 nothing
            is coarsened and nothing rounded.
        withheld: The packs that the site's policy does not let out; they are those of nobody.
    """

    site: str
    digest: str
    run: str
    round: int
    patients: int
    cell: int
    packs: Packs
    withheld: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class SitePlacements:
    """A site's answer to the second exchange."""

    site: str
    digest: str
    run: str
    round: int
    sums: PlacementSums


def question_of(instruction: Instruction, model: Model, merged: ScoreCounts | None) -> RecordDict:
    """Return the content that asks for packs, or with merged histograms for placements."""
    content = pack_instruction(instruction, model)
    if merged is not None:
        content[MERGED] = _record(merged.to_arrays(""))
    return content


def merged_counts(content: RecordDict, study: Study) -> ScoreCounts:
    """Return the merged histograms in a question.

    Raises:
        RunError: There are none.
        InputError: No examinations can give them.
    """
    record = arrays_of(content).get(MERGED)
    if record is None:
        msg = "the server's question has no merged histograms: update wardround."
        raise RunError(msg)
    expected = ScoreCounts.empty(study.class_count, study.evaluation.pack_bins).to_arrays("")
    arrays = _arrays(content, MERGED)
    check_arrays(arrays, expected)
    return ScoreCounts.from_arrays(
        arrays["positives"].astype(np.int64), arrays["negatives"].astype(np.int64), MOST_OF_ALL
    )


def pack_packs(said: SitePacks) -> RecordDict:
    """Return the content of the message that carries a site's packs."""
    content = RecordDict({"header": _header(said)})
    told = {f"{TELLS}{name}": int(name not in said.withheld) for name in said.packs}
    content[FACTS] = MetricRecord({PATIENTS: said.patients, CELL: said.cell, **told})
    content[RECORD] = _record(pack_arrays(said.packs))
    return content


def unpack_packs(content: RecordDict, study: Study) -> SitePacks:
    """Return the packs in a message.

    Raises:
        RunError: The message is not one.
        WardroundError: An array cannot be read, or holds what no patients can give.
    """
    try:
        site, digest, run, number = _read_header(content)
        facts = Fields(metrics_of(content).get(FACTS), FACTS)
        patients = facts.whole(PATIENTS, most=_MOST_PATIENTS)
        cell = facts.whole(CELL, least=1, most=_MOST_CELL)
        withheld = frozenset(
            name for name in study.evaluation.pack if not facts.whole(f"{TELLS}{name}", most=1)
        )
        arrays = _arrays(content, RECORD)
    except FieldError as error:
        raise RunError(_unreadable(error)) from None
    packs = packs_of(arrays, study)
    _check_counts(pack_arrays(packs), patients, cell)
    return SitePacks(site, digest, run, number, patients, cell, packs, withheld)


def _check_counts(arrays: Arrays, patients: int, cell: int) -> None:
    """Check that a site's tables are of the patients and of the smallest cell that it names.

    Raises:
        RunError: They are not.
    """
    for name, array in arrays.items():
        if array.dtype != np.int64:
            continue
        counts = array.astype(np.int64)
        if (counts % cell).any():
            msg = f"{name} counts other than in multiples of {cell}, its smallest cell."
            raise RunError(msg)
        of_test = name.endswith("patients") and not name.startswith("calibration/")
        if of_test and (counts > patients).any():
            msg = f"{name} is of more than the {patients} test patients that it has."
            raise RunError(msg)


def pack_placements(said: SitePlacements) -> RecordDict:
    """Return the content of the message that carries a site's placements."""
    return RecordDict({"header": _header(said), RECORD: _record(said.sums.to_arrays(""))})


def unpack_placements(content: RecordDict, study: Study) -> SitePlacements:
    """Return the placements in a message.

    Raises:
        RunError: The message is not one.
        WardroundError: An array cannot be read, or holds what no patients can give.
    """
    try:
        site, digest, run, number = _read_header(content)
        arrays = _arrays(content, RECORD)
    except FieldError as error:
        raise RunError(_unreadable(error)) from None
    check_arrays(arrays, PlacementSums.empty(study.class_count).to_arrays(""))
    sums = PlacementSums.from_arrays(
        arrays["patients"].astype(np.int64), arrays["means"].astype(np.float64)
    )
    return SitePlacements(site, digest, run, number, sums)


def _header(said: SitePacks | SitePlacements) -> ConfigRecord:
    return ConfigRecord(
        {"site": said.site, "digest": said.digest, "run": said.run, "round": said.round}
    )


def _read_header(content: RecordDict) -> tuple[str, str, str, int]:
    header = Fields(configs_of(content).get("header"), "header")
    return (
        header.text("site", least=1),
        header.text("digest"),
        header.text("run", longest=32),
        header.whole("round"),
    )


def _arrays(content: RecordDict, name: str) -> Mapping[str, NDArray[np.generic]]:
    record = arrays_of(content).get(name)
    if record is None:
        msg = f"{name} is missing"
        raise FieldError(msg)
    return {key: tensor.numpy() for key, tensor in from_array_record(record).items()}


def _record(arrays: Arrays) -> ArrayRecord:
    import torch

    return to_array_record(
        {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    )


def _unreadable(error: FieldError) -> str:
    return (
        f"the evidence cannot be read ({error}): server and site must run the same version of "
        "wardround."
    )
