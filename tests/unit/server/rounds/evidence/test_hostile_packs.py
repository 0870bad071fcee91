"""A hospital that lies in its packs: its answer is refused, and the others' stay."""

import io
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, Message, RecordDict
from tests.support.hostile.messages import SPOILERS, is_plain
from tests.support.pack_cases import RUN, measured, table_study_with

from wardround.client.egress.packs.disclosure import reduce_packs, told_patients
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.flower.messages.content import (
    arrays_of,
    configs_of,
    from_bytes,
    metrics_of,
    to_bytes,
)
from wardround.common.flower.site_grid import claim_identity
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.packs import (
    PACK,
    SitePacks,
    SitePlacements,
    merged_counts,
    pack_packs,
    pack_placements,
    question_of,
)
from wardround.common.metrics.packs.intervals import IntervalPack
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.parameters.array_records import to_array_record
from wardround.common.study.plans.packs import PACKS
from wardround.server.checkpoints.evidence import read_evidence, write_evidence
from wardround.server.checkpoints.store import Commit, Progress
from wardround.server.rounds.evidence.collection import Evidence, collect_evidence
from wardround.server.rounds.evidence.findings import evidence_rows
from wardround.server.sites.exchange import Node

STUDY = table_study_with()
NODES = (Node(1, "evil", 50), Node(2, "north", 50))
COMMIT = Commit(Progress(STUDY.digest, RUN, 3), {"w": torch.zeros(1)})
Lie = Callable[[RecordDict], None]


class LyingGrid:
    """Two sites that answer at once; the first one changes what it says."""

    def __init__(self, lie: Lie, about: str = PACK) -> None:
        self._lie, self._about = lie, about
        self._kept: dict[str, Message] = {}
        self.asked: list[tuple[str, int]] = []

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node, kind = message.metadata.dst_node_id, message.metadata.message_type
            self.asked.append((kind, node))
            site = NODES[node - 1].site
            content = _answer(site, kind)
            if site == "evil" and kind == self._about:
                self._lie(content)
            key = f"{kind}-{node}"
            self._kept[key] = Message(content, dst_node_id=1, message_type=kind)
            ids.append(key)
        return ids

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        return [self._kept.pop(one) for one in ids]

    def get_node_ids(self) -> list[int]:
        return [1, 2]


MEASURED = {"evil": measured(1, 120), "north": measured(2, 150)}


@cache
def _honest(site: str, kind: str) -> bytes:
    one = MEASURED[site]
    assert isinstance(one.cases, ClassifiedCases)
    packs = reduce_packs(one, STUDY, 10, PACKS)
    if kind == PACK:
        count = told_patients(one.cases, 10)
        return to_bytes(pack_packs(SitePacks(site, STUDY.digest, RUN, 3, count, 10, packs)))
    pack = packs["intervals"]
    assert isinstance(pack, IntervalPack)
    assert pack.own is not None
    return to_bytes(pack_placements(SitePlacements(site, STUDY.digest, RUN, 3, pack.own)))


def _answer(site: str, kind: str) -> RecordDict:
    return from_bytes(_honest(site, kind))


@pytest.fixture(autouse=True)
def _identity() -> None:
    claim_identity(1)


def collected(lie: Lie, about: str = PACK) -> Evidence:
    return collect_evidence(LyingGrid(lie, about), STUDY, NODES, COMMIT)  # type: ignore[arg-type]


def filled(name: str, value: float) -> Lie:
    def lie(content: RecordDict) -> None:
        record = arrays_of(content)["pack"]
        array = record[name]
        made = np.full(array.shape, value).astype(array.dtype)
        record[name] = to_array_record({"a": torch.from_numpy(made)})["a"]

    return lie


def changed(record: str, key: str, value: object) -> Lie:
    def lie(content: RecordDict) -> None:
        found = metrics_of(content).get(record) or configs_of(content)[record]
        found[key] = value  # type: ignore[index, assignment]

    return lie


TABLES = [*arrays_of(_answer("evil", PACK))["pack"]]


def test_honest_sites_are_both_told_of() -> None:
    found = collected(lambda _: None)
    assert (set(found.sites), set(found.placements)) == ({"evil", "north"}, {"evil", "north"})
    assert not found.refused


@pytest.mark.parametrize("value", [-10.0, float("nan"), float("inf"), 1e12])
@pytest.mark.parametrize("name", TABLES)
def test_numbers_that_no_patients_can_give_are_that_sites_refusal(name: str, value: float) -> None:
    with np.errstate(invalid="ignore"):
        found = collected(filled(name, value))
    assert set(found.sites) == {"north"}
    assert set(found.refused) == {"evil"}
    assert is_plain(found.refused["evil"])


@pytest.mark.parametrize(
    ("record", "key", "value"),
    [
        ("header", "site", "north"),
        ("header", "run", "1" * 32),
        ("header", "round", 2),
        ("header", "digest", "ab"),
        ("facts", "cell", 0),
        ("facts", "patients", -10),
        ("facts", "tells-gains", 2),
        ("facts", "patients", [1, 2]),
    ],
)
def test_an_answer_of_another_site_or_model_is_that_sites_refusal(
    record: str, key: str, value: object
) -> None:
    found = collected(changed(record, key, value))
    assert set(found.sites) == {"north"}
    assert is_plain(found.refused["evil"])


@pytest.mark.parametrize("number", range(len(SPOILERS)))
def test_a_spoilt_array_is_refused_or_makes_rows_that_can_be_written(
    number: int, tmp_path: Path
) -> None:
    spoil: Callable[[Array], Array] = SPOILERS[number]
    for name in TABLES[number % 4 :: 4]:

        def lie(content: RecordDict, name: str = name) -> None:
            record = arrays_of(content)["pack"]
            try:
                record[name] = spoil(record[name])
            except (ValueError, TypeError, RuntimeError, MemoryError):
                del record[name]

        found = collected(lie)
        assert "north" in found.sites
        assert all(is_plain(reason) for reason in found.refused.values())
        write_evidence(tmp_path, evidence_rows(found, STUDY))
        assert read_evidence(tmp_path)


def test_a_lie_in_the_second_exchange_costs_no_other_sites_answer() -> None:
    for name in ("patients", "means"):
        found = collected(filled(name, -10.0), "evaluate.placements")
        assert set(found.placements) == {"north"}
        assert set(found.refused) == {"evil"}
        rows = evidence_rows(found, STUDY)
        together = [one for one in rows if (one.site, one.metric) == ("all sites", "auroc")]
        assert together[0].low is None
        assert "second exchange" in together[0].note


def test_counts_of_a_site_do_not_make_the_others_refuse_the_merged_ones() -> None:
    """On 3cda7f4 the merged histograms were more than a site takes: one lie cost all intervals."""
    value = 2**40 // 200 // 10 * 10
    found = collected(filled("intervals/positives", value))
    assert set(found.refused) == {"evil"}
    merged = found.merged_counts()
    instruction = Instruction(STUDY.digest, RUN, 3, {}, split="test")
    question = question_of(instruction, COMMIT.parameters, merged)
    assert merged_counts(question, STUDY).positives.any()


def test_all_that_a_thousand_sites_may_count_is_taken_by_each() -> None:
    most = np.full((2, 100), 10**9 // 200)
    merged = ScoreCounts.from_arrays(most, most)
    for _ in range(10):  # 1,024 sites
        merged = merged.plus(merged)
    instruction = Instruction(STUDY.digest, RUN, 3, {}, split="test")
    assert merged_counts(question_of(instruction, COMMIT.parameters, merged), STUDY)


@pytest.mark.parametrize("name", [one for one in TABLES if one.endswith("patients")])
def test_more_patients_than_a_site_tells_of_are_its_refusal(name: str) -> None:
    """On 3cda7f4 a site of 120 patients could weigh as 10,000 in each number of all sites."""
    if name.startswith("calibration/"):  # of validation patients, whom nothing else counts
        return
    found = collected(filled(name, 10_000))
    assert set(found.sites) == {"north"}
    assert is_plain(found.refused["evil"])


@pytest.mark.parametrize("name", ["intervals/positives", "calibration/counts"])
def test_counts_that_are_no_multiples_of_a_sites_cell_are_its_refusal(name: str) -> None:
    """On 3cda7f4 an exact count was read as a rounded one, of any cell that the site named."""

    def lie(content: RecordDict) -> None:
        record = arrays_of(content)["pack"]
        one = np.load(io.BytesIO(record[name].data), allow_pickle=False).copy()
        one[one > 0] += 1
        record[name] = to_array_record({"a": torch.from_numpy(one)})["a"]

    found = collected(lie)
    assert set(found.sites) == {"north"}
    assert "multiples of 10" in found.refused["evil"]


def test_patients_without_an_examination_are_that_sites_refusal() -> None:
    """On 3cda7f4 they made the value of all sites together one that cannot be told."""
    found = collected(filled("intervals/ratios-means", 0.0))
    assert set(found.sites) == {"north"}


def test_placements_of_more_patients_than_were_told_are_that_sites_refusal() -> None:
    def lie(content: RecordDict) -> None:
        filled("patients", 100_000)(content)
        filled("means", 0.0)(content)

    found = collected(lie, "evaluate.placements")
    assert set(found.placements) == {"north"}
    assert "more than the 120" in found.refused["evil"]
