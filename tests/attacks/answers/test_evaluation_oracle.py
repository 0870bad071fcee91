"""A server that has models of its own choice measured, to read the patients they are measured on.

Under privacy a study's site answers once a round and part, with noise. On b4151c0 it answered all
of these exactly: 21 questions read a number out of one patient's record to four digits, in a study
with epsilon 1, and whether the accuracy moved up or down told her class.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    context_of,
    log_of,
    refusal_of,
    write_site,
)
from tests.support.hospitals.image_ward import ask_statistics, volume, ward_study, write_ward
from tests.support.pack_cases import draw_cases, measured, table_study_with

from wardround.client.app import app, close_sessions, open_session
from wardround.client.data.cohort import Cohort
from wardround.client.egress.packs.disclosure import placements, reduce_packs, told_counts
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.flower.messages.content import Fingerprint, fingerprint_of, metrics_of
from wardround.common.flower.site_grid import stamp
from wardround.common.messages.audit import REPORT_RECORD
from wardround.common.messages.instructions import EVALUATE, Instruction, new_run
from wardround.common.messages.packs import PACK, PLACEMENTS, question_of, unpack_packs
from wardround.common.messages.replies import unpack_evaluation, unpack_refusal
from wardround.common.metrics.packs.intervals import IntervalPack
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.metrics.packs.subgroups import SubgroupPack
from wardround.common.metrics.task_sums import MetricValue
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks
ROUNDS = 10


def study_with(mode: str) -> Study:
    content = STUDY.model_dump(exclude_defaults=True)
    content["study"]["name"] = f"oracle-{mode}"
    content["model"] = {"network": "mlp", "features": []}
    content["federation"] = {"rounds": ROUNDS}
    if mode == "patient":
        noise = {"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 0.1, "expected_patients": 30}
        content["privacy"] = {"mode": mode, **noise}
    return parse_study(content)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


@dataclass
class Server:
    """A hostile server: it knows the study, and nothing of the patients."""

    folder: Path
    study: Study
    split: str = "validation"
    asked: int = 0
    answers: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def measure(self, weights: list[float], bias: float) -> float | None:
        """Return the accuracy of ``sign(w x + b)``; it tries rounds, runs and tries as it needs."""
        self.asked += 1
        for attempt in range(3):
            number = self.asked % (ROUNDS + 1)
            content = ask(
                self.folder, EVALUATE, self._instruction(weights, bias, number, attempt), self.study
            )
            if (refusal := unpack_refusal(content)) is not None:
                self.refusals.append(refusal.code)
                continue
            self.answers.setdefault((number, self.split), set()).add(told_by(content).sha256)
            return self._accuracy(content)
        return None

    def _instruction(
        self, weights: list[float], bias: float, number: int, attempt: int
    ) -> Instruction:
        network = open_session(context_of(self.folder, self.study)).context.network
        names = [name for name, _ in network.named_parameters()]
        matrix = torch.zeros(2, len(weights))
        matrix[1] = torch.tensor(weights)
        shift = torch.tensor([0.0, bias])
        parameters = dict(zip(names, (matrix, shift), strict=True))
        return Instruction(
            self.study.digest, new_run(), number, parameters, attempt=attempt, split=self.split
        )

    def _accuracy(self, content: RecordDict) -> float | None:
        values = metrics_of(content).get("values")
        if values is not None:
            return float(values["accuracy"])
        metrics = unpack_evaluation(content, self.study).metrics
        assert metrics is not None
        return _noised_accuracy(metrics, self.study)


def _noised_accuracy(metrics: object, study: Study) -> float | None:
    from wardround.common.metrics.noised.decoding import summarise_noised
    from wardround.common.metrics.noised.encoding import NoisedSums

    assert isinstance(metrics, NoisedSums)
    values: tuple[MetricValue, ...] = summarise_noised(metrics, study)
    return next(value.value for value in values if value.metric == "accuracy")


def read_largest(server: Server, column: int, steps: int = 20) -> float | None:
    """Return the largest number of a column over the patients, found by bisection.

    With a threshold above it the accuracy is that of a constant answer. Just below it one patient
    is told apart: the accuracy moves by 1 / N, up if she is ill and down if she is not.
    """
    weights = [float(index == column) for index in range(2)]
    low, high = 0.0, 16.0
    constant = server.measure(weights, -high)
    for _ in range(steps):
        middle = (low + high) / 2
        seen = server.measure(weights, -middle)
        if seen is None or constant is None:
            return None
        low, high = (low, middle) if seen == constant else (middle, high)
    return high


# Named, so that the same patients are measured in every run of the tests.
PARTS = ("train",) * 14 + ("validation",) * 3 + ("test",) * 3


def told_by(content: RecordDict) -> Fingerprint:
    """Return the mark of an answer without the state of the site's audit log, which goes on."""
    return fingerprint_of(RecordDict({k: v for k, v in content.items() if k != REPORT_RECORD}))


def hospital(tmp_path: Path, study: Study, **policy: str) -> tuple[Path, Cohort]:
    # Whatever the weights: the cap on them is another finding's.
    folder = write_site(tmp_path / "north", approved=f'["{study.digest}"]', **policy)
    manifest = folder / "manifest.csv"
    header, *rows = manifest.read_text().splitlines()
    named = [f"{row},{PARTS[number % len(PARTS)]}" for number, row in enumerate(rows)]
    manifest.write_text("\n".join([f"{header},split", *named]))
    return folder, open_session(context_of(folder, study)).cohorts.validation


def test_a_study_with_privacy_tells_a_hostile_server_of_no_single_patient(tmp_path: Path) -> None:
    study = study_with("patient")
    folder, cohort = hospital(tmp_path, study)
    covariates = cohort.covariates
    assert covariates is not None
    server = Server(folder, study)
    read = [read_largest(server, column) for column in range(2)]
    truth = covariates.max(dim=0).values.tolist()
    told = [one for one, right in zip(read, truth, strict=True) if one is not None]
    assert not any(abs(one - right) < 0.01 for one, right in zip(told, truth, strict=False))


def test_hundreds_of_questions_get_one_noised_answer_a_round_and_part(tmp_path: Path) -> None:
    study = study_with("patient")
    folder, _ = hospital(tmp_path, study)
    for split in ("validation", "test"):
        server = Server(folder, study, split)
        for number in range(60):
            if number % 20 == 19:
                close_sessions()  # the site's worker starts anew
            server.measure([1.0, 0.0], -number / 50)
        answers = ROUNDS + 1 if split == "validation" else 1
        assert sum(map(len, server.answers.values())) <= answers
        assert all(len(one) == 1 for one in server.answers.values())
        assert set(server.refusals) == {"evaluations"}


def test_the_same_order_gets_the_same_bytes_whatever_weights_it_brings(tmp_path: Path) -> None:
    study = study_with("patient")
    folder, _ = hospital(tmp_path, study)
    server = Server(folder, study)
    order = server._instruction([1.0, 0.0], 0.0, 1, 0)
    first = told_by(ask(folder, EVALUATE, order, study))
    order.parameters[next(iter(order.parameters))].mul_(-1.0)
    assert told_by(ask(folder, EVALUATE, order, study)) == first
    close_sessions()
    assert told_by(ask(folder, EVALUATE, order, study)) == first


def test_a_round_that_the_study_does_not_have_is_not_measured(tmp_path: Path) -> None:
    study = study_with("patient")
    folder, _ = hospital(tmp_path, study)
    order = Server(folder, study)._instruction([1.0, 0.0], 0.0, ROUNDS + 1, 0)
    assert refusal_of(ask(folder, EVALUATE, order, study))[1] == "failed"
    assert not (folder / "ledger").exists()


@pytest.mark.parametrize("metrics", ['"sums"', '"values"'])
def test_nothing_is_told_exactly_whatever_the_policy_says_of_metrics(
    tmp_path: Path, metrics: str
) -> None:
    study = study_with("patient")
    cells = {"smallest_cell": "1"} if metrics == '"sums"' else {}
    folder, cohort = hospital(tmp_path, study, metrics=metrics, **cells)
    order = Server(folder, study)._instruction([1.0, 0.0], 0.0, 1, 0)
    content = ask(folder, EVALUATE, order, study)
    assert set(content) - {REPORT_RECORD} == {"header", "facts", "noised"}
    assert not metrics_of(content)["facts"]
    vector = unpack_evaluation(content, study).metrics
    assert len(cohort) not in vector.vector.tolist()


def test_without_privacy_a_site_measures_as_many_models_as_its_policy_says(tmp_path: Path) -> None:
    study = study_with("none")
    folder, _ = hospital(tmp_path, study)
    server = Server(folder, study)
    told = [server.measure([1.0, 0.0], -number / 50) for number in range(205)]
    assert sum(one is not None for one in told) == 200
    assert told[200:] == [None] * 5
    assert set(server.refusals) == {"evaluations"}
    close_sessions()
    assert server.measure([1.0, 0.0], 0.0) is None


def test_without_a_limit_a_patient_is_read_to_four_digits(tmp_path: Path) -> None:
    """The attack works where nothing stops it: the tests above are no accident."""
    study = study_with("none")
    folder, cohort = hospital(tmp_path, study)
    assert cohort.covariates is not None
    read = [read_largest(Server(folder, study), column) for column in range(2)]
    assert read == pytest.approx(cohort.covariates.max(dim=0).values.tolist(), abs=1e-4)


@pytest.mark.parametrize("mode", ["none", "patient"])
def test_a_server_that_asks_for_statistics_again_and_again_is_told_once(
    tmp_path: Path, mode: str
) -> None:
    """The mean of many noised answers would have no noise, and two exact ones a difference."""
    study = ward_study(mode, statistics={"intensity_bins": 32})
    volumes = [volume(seed) for seed in range(14)]
    folder = write_ward(tmp_path / "north", volumes, study, smallest_cell="1")
    told = {told_by(ask_statistics(folder, study)).sha256 for _ in range(4)}
    manifest = folder / "manifest.csv"
    for _ in range(4):  # a patient withdraws between any two questions
        manifest.write_text("\n".join(manifest.read_text().splitlines()[:-1]))
        told.add(told_by(ask_statistics(folder, study)).sha256)
        close_sessions()
    assert len(told) == 1
    charged = [entry for entry in log_of(folder) if entry.event.kind == "statistics"]
    assert len(charged) == 8


def test_a_server_that_varies_its_study_is_told_as_often_as_a_person_approves(
    tmp_path: Path,
) -> None:
    asked = [ward_study(statistics={"intensity_bins": 32 + shift}) for shift in range(5)]
    folder = write_ward(tmp_path / "north", [volume(seed) for seed in range(14)], asked[0])
    answers = [unpack_refusal(ask_statistics(folder, study)) for study in asked]
    assert [answer is None for answer in answers] == [True, False, False, False, False]
    assert {answer.code for answer in answers if answer is not None} == {"approval"}


# --- Evidence: a server that asks for the packs of a finished model
def crafted_histograms(told: ScoreCounts) -> Iterator[ScoreCounts]:
    """Yield what a server would send to see one score: a step below it, and huge on one side."""
    bins = told.positives.shape[1]
    for step in range(0, bins, 7):
        merged = ScoreCounts(told.positives.copy(), told.negatives.copy())
        merged.negatives[:, step] += 10**9  # the own examinations are then nothing beside it
        yield merged
        merged.positives[:, bins - 1 - step] += 10**9
        yield ScoreCounts(merged.positives, told.negatives)


def with_one_score_moved(cases: ClassifiedCases, least: int, study: Study) -> ClassifiedCases:
    """Return the cases with one ill patient's score elsewhere in the cell in which it was told."""
    counts, (ahead, _) = told_counts(cases, study, least)
    for index in np.flatnonzero(cases.truth[:, 1]):
        for moved in np.arange(0.005, 1, 0.01):
            scores = cases.scores.copy()
            scores[index] = 1 - moved, moved
            other = replace(cases, scores=scores)
            again, _ = told_counts(other, study, least)
            is_far = abs(moved - cases.scores[index, 1]) > 0.05
            if is_far and (again.positives == counts.positives).all():
                return other
    raise AssertionError(ahead)


def test_a_crafted_merged_histogram_tells_nothing_that_the_told_cells_did_not() -> None:
    """Placement values against a histogram of the server's choice are any function of a score.

    A patient is placed from the cell in which she was told, with others. So two hospitals that
    told the same cells answer the same, whatever they are asked, though her scores differ.
    """
    study = table_study_with(["intervals"])
    cases, _ = draw_cases(5, 120)
    moved = with_one_score_moved(cases, 10, study)
    told, _ = told_counts(cases, study, 10)
    seen, exact = 0, 0
    for merged in crafted_histograms(told):
        first, second = (placements(one, merged, study, 10) for one in (cases, moved))
        assert (first.means == second.means).all()
        assert (first.patients == second.patients).all()
        seen += 1
        # Where a hospital sets no smallest cell, the same question tells the two apart.
        own, _ = told_counts(cases, study, 1)
        wide = ScoreCounts(own.positives + merged.positives, own.negatives + merged.negatives)
        bare = [placements(one, wide, study, 1).means for one in (cases, moved)]
        exact += bool((bare[0] != bare[1]).any())
    assert seen == 30
    assert exact > 0


def test_a_server_gets_one_batch_of_evidence_of_one_model_and_one_histogram(
    tmp_path: Path,
) -> None:
    content = study_with("none").model_dump(exclude_defaults=True)
    content["evaluation"] = {"pack": ["intervals"], "test_fraction": 0.3}
    study = parse_study(content)
    folder = write_site(
        tmp_path / "north",
        300,
        approved=f'["{study.digest}"]',
        packs='["intervals", "calibration", "subgroups", "gains"]',
        largest_packs_of_a_study="1",
    )
    server = Server(folder, study, "test")
    order = server._instruction([1.0, 0.0], 0.0, 3, 0)
    told = unpack_packs(ask(folder, PACK, order, study), study)
    pack = told.packs["intervals"]
    assert set(told.packs) == {"intervals"}, "no more than the study names"
    assert isinstance(pack, IntervalPack)
    assert pack.counts is not None

    def place(merged: ScoreCounts, about: Instruction = order) -> str:
        question = question_of(replace(about, parameters={}), about.parameters, merged)
        message = Message(question, 7, PLACEMENTS)
        stamp(message, "message-1")
        refusal = unpack_refusal(app(message, context_of(folder, study)).content)
        return "" if refusal is None else refusal.code

    other = replace(server._instruction([0.0, 1.0], 0.0, 3, 0), run=order.run)
    assert place(pack.counts, other) == "input"  # the packs were of another model
    assert place(ScoreCounts.empty(2, 100)) == "input"  # nothing of what this site told
    histograms = list(crafted_histograms(pack.counts))
    assert place(histograms[0]) == ""
    assert {place(one) for one in histograms[1:]} == {"policy"}  # one histogram, crafted or not
    assert place(histograms[0]) == ""  # the same bytes
    assert refusal_of(ask(folder, PACK, other, study))[1] == "policy"
    again = replace(other, run=new_run())
    assert refusal_of(ask(folder, PACK, again, study))[1] == "policy"  # another run
    kinds = [entry.event.kind for entry in log_of(folder) if entry.event.bytes]
    assert kinds.count("pack") == 1
    assert kinds.count("placements") == 2


def test_who_is_left_out_of_a_subgroup_does_not_follow_from_the_others() -> None:
    """One man among the women: what is told of all and of the women would be his own result."""
    study = table_study_with(["intervals", "subgroups"])
    one = measured(3, 100)
    women = np.ones((len(one.groups), 1), dtype=bool)
    women[one.cases.patients == 7] = False
    lone = replace(one, groups=np.concatenate([women, ~women, ~women & False], axis=1))
    packs = reduce_packs(lone, study, 10, study.evaluation.pack)
    subgroups = packs["subgroups"]
    assert isinstance(subgroups, SubgroupPack)
    assert not subgroups.ratios.patients.any()
