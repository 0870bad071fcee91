"""Whole simulated runs whose sites mask their updates: the sum is exact, and nothing else is told.

Long are the other strategies and stages, the pool, a resumption, and
``test_heart_disease_is_learned_from_exact_sums``: 15 rounds over four real hospitals, each round's
model held against the plain integer sum of what the sites coded, and the last model's accuracy
against the run without masks.
"""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from tests.support.hospitals.table_sites import ALONE, StoppedError, study_for, write_sites

from wardround.client.egress import masking
from wardround.client.egress.masking import MaskedSite
from wardround.common.errors import RunError
from wardround.common.flower.messages.content import configs_of, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.masking import MASK, RECORD
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.arithmetic import difference, digest, distance
from wardround.common.parameters.schema import Parameters
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.lost_sites import lost_words, missed_rounds
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.loop import RoundFinished
from wardround.simulations.engines.in_process import InProcessGrid
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation

MASKED = {"federation.secure_aggregation": True, "evaluation.keep": "last"}
ROUNDS = 2
STAGES = ("advertise", "share", "mask", "agree", "unmask")


def masked(strategy: str = "fedavg", **changes: object) -> Study:
    return study_for(strategy, **{**MASKED, "federation.rounds": ROUNDS, **changes})


def run(
    root: Path, study: Study, machine: Machine = ALONE, sites: int = 3, cut_after: int = 0
) -> tuple[Parameters, list[RoundRecord]]:
    def listen(event: RoundFinished) -> None:
        if event.record.round == cut_after:
            raise StoppedError

    folders = sorted(root.glob("sites/*")) or write_sites(root / "sites", sites)
    with open_grid(folders, study, machine) as grid:
        commit = run_federation(grid, study, root / "checkpoints", listen)
    return commit.parameters, read_records(CheckpointStore(root / "checkpoints").history_path)


class Coded(NamedTuple):
    """What a site coded in a round."""

    layout: VectorLayout
    words: Words
    start: Parameters


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> list[Coded]:
    """What sites coded, in the order of the rounds."""
    kept: list[Coded] = []
    plain = MaskedSite._encode

    def encode(
        self: MaskedSite, layout: VectorLayout, update: SiteUpdate, instruction: Instruction
    ) -> Words:
        words = plain(self, layout, update, instruction)
        start = {name: tensor.clone() for name, tensor in instruction.parameters.items()}
        kept.append(Coded(layout, words, start))
        return words

    monkeypatch.setattr(MaskedSite, "_encode", encode)
    return kept


def plain_sum(parts: list[Coded]) -> str:
    """Return the digest of the model that the plain sum of some sites' words gives."""
    total = np.sum([part.words for part in parts], axis=0, dtype="<u8")
    return digest(parts[0].layout.decode(total, parts[0].start).model)


def require_exact(coded: list[Coded], last: Parameters, sites: int, rounds: int) -> None:
    """Hold each round's model, bit for bit, against the plain sum of what its sites coded."""
    assert len(coded) == sites * rounds
    parts = [coded[number * sites : (number + 1) * sites] for number in range(rounds)]
    made = [*(part[0].start for part in parts[1:]), last]
    assert [plain_sum(part) for part in parts] == [digest(model) for model in made]


def test_each_rounds_model_is_the_plain_integer_sum_to_the_last_bit(
    tmp_path: Path, coded: list[Coded]
) -> None:
    last, _ = run(tmp_path, masked(**{"federation.rounds": 3}))
    require_exact(coded, last, sites=3, rounds=3)


@pytest.mark.parametrize(
    "strategy",
    [
        "fedbn",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("fedadam", "fedavg", "fedprox", "fedyogi", "fedper", "ditto")
        ),
        "scaffold",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("fednova", "feddyn", "qfedavg")),
    ],
)
def test_a_masked_run_learns_what_the_same_run_learns_in_the_clear(
    strategy: str, tmp_path: Path
) -> None:
    open_study = study_for(strategy, **{"evaluation.keep": "last", "federation.rounds": ROUNDS})
    clear, records = run(tmp_path / "clear", open_study)
    hidden, told = run(tmp_path / "masked", masked(strategy))
    assert difference(clear, hidden) < 1e-4
    for before, after in zip(records[:ROUNDS], told[:ROUNDS], strict=True):
        ours, theirs = after.measurements[-1], before.measurements[-1]
        assert [m.site for m in after.measurements] == ["all sites"]
        for mine, other in zip(ours.values, theirs.values, strict=True):
            assert mine.value == pytest.approx(other.value, abs=1e-4, nan_ok=True)


@pytest.mark.long
def test_sites_that_all_count_the_same_have_the_plain_mean(tmp_path: Path) -> None:
    equal = {
        "federation.aggregation": "mean",
        "evaluation.keep": "last",
        "federation.rounds": ROUNDS,
    }
    clear, _ = run(tmp_path / "clear", study_for("fedavg", **equal))
    hidden, _ = run(tmp_path / "masked", masked(**equal))
    assert difference(clear, hidden) < 1e-5


def test_narrow_words_give_the_plain_mean(tmp_path: Path) -> None:
    equal = {"federation.aggregation": "mean", "federation.rounds": 1}
    open_study = study_for("fedavg", **{**equal, "evaluation.keep": "last"})
    clear, before = run(tmp_path / "clear", open_study)
    hidden, after = run(tmp_path / "narrow", masked(**equal, **{"federation.masks.word_bits": 32}))
    assert difference(clear, hidden) < 1e-5
    ours, theirs = after[0].measurements[-1], before[0].measurements[-1]
    for mine, other in zip(ours.values, theirs.values, strict=True):
        assert mine.value == pytest.approx(other.value, abs=1e-4, nan_ok=True)


def test_no_change_in_the_sum_is_longer_than_the_study_allows(
    tmp_path: Path, coded: list[Coded]
) -> None:
    run(tmp_path, masked(**{"federation.rounds": 1, "federation.masks.clip_norm": 0.01}))
    for one in coded:
        alone = one.layout.decode(one.words, one.start).model
        changed = {name: alone[name] for name in one.layout.trainable}
        assert distance(changed, one.start) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.long
def test_a_pool_of_workers_gives_the_same_model_to_the_last_bit(tmp_path: Path) -> None:
    alone, _ = run(tmp_path / "alone", masked())
    pool, _ = run(tmp_path / "pool", masked(), Machine(engine="pool", workers=2, threads=1))
    assert digest(alone) == digest(pool)


@pytest.mark.long
def test_a_run_over_ray_gives_the_same_model_to_the_last_bit(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    alone, _ = run(tmp_path / "alone", masked())
    over_ray, _ = run(tmp_path / "ray", masked(), Machine(engine="ray", workers=2, threads=1))
    assert digest(alone) == digest(over_ray)


@pytest.mark.long
def test_a_resumed_masked_run_ends_bit_for_bit_like_one_that_was_not_stopped(
    tmp_path: Path,
) -> None:
    whole, _ = run(tmp_path / "whole", masked())
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", masked(), cut_after=1)
    again, _ = run(tmp_path / "cut", masked())
    assert digest(again) == digest(whole)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, RecordDict]]:
    """Every message that a site has sent, with its stage."""
    said: list[tuple[str, RecordDict]] = []
    plain = InProcessGrid.pull_messages

    def pull(self: InProcessGrid, ids: Iterable[str]) -> Iterable[Message]:
        replies = list(plain(self, ids))
        for reply in replies:
            record = configs_of(reply.content).get(RECORD)
            said.append(("" if record is None else str(record["stage"]), reply.content))
        return replies

    monkeypatch.setattr(InProcessGrid, "pull_messages", pull)
    return said


def test_no_plain_count_metric_loss_or_number_of_the_model_is_in_what_leaves(
    tmp_path: Path,
    heard: list[tuple[str, RecordDict]],
    coded: list[Coded],
) -> None:
    _, records = run(tmp_path, masked(**{"federation.rounds": 1}))
    stages = [stage for stage, _ in heard if stage]
    # One round, and the last model measured.
    assert stages == [s for s in (*STAGES, *STAGES, "end") for _ in "123"]
    sent = b"".join(to_bytes(content) for _, content in heard)
    looked_for = 0
    for one in coded:
        long = one.words.tobytes()
        for place in range(0, len(long), 8):
            word = long[place : place + 8]
            if len(set(word) - {0, 255}) >= 4:  # small ones stand anywhere by chance
                looked_for += 1
                assert word not in sent
    assert looked_for > 20
    for stage, content in heard:
        if stage:
            assert set(content) <= {RECORD, "masked"}
            assert set(content[RECORD]) == {
                "site", "digest", "run", "round", "attempt", "stage", "signed"
            }  # fmt: skip
            assert ("masked" in content) == (stage == MASK)
    for site in records[0].sites:
        assert (site.examinations, site.updates, site.seconds) == (1, 0, 0.0)
        assert np.isnan(site.training_loss)


def drop(
    monkeypatch: pytest.MonkeyPatch, stage: str, names: set[str], word: str = "masking"
) -> None:
    """Have some sites fail in a stage."""
    plain = MaskedSite.answer
    trained = MaskedSite.train

    def answer(self: MaskedSite, asked: masking.StageAsked) -> RecordDict:
        if asked.stage == stage and self.session.site.name in names:
            msg = f"lost in stage {stage}"
            raise RunError(msg)
        return plain(self, asked)

    def train(self: MaskedSite, *rest: object) -> RecordDict:
        if stage == "advertise" and self.session.site.name in names:
            msg = "lost in training"
            raise RunError(msg)
        return trained(self, *rest)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(MaskedSite, "answer", answer)
    monkeypatch.setattr(MaskedSite, "train", train)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(name, marks=() if name in ("mask", "agree") else pytest.mark.long)
        for name in STAGES
    ],
)
def test_a_site_of_five_lost_in_any_stage_leaves_an_exact_sum(
    stage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    coded: list[Coded],
) -> None:
    drop(monkeypatch, stage, {"site-3"})
    last, records = run(tmp_path, masked(**{"federation.rounds": 1}), sites=5)
    there = [site.site for site in records[0].sites]
    lost = stage in ("advertise", "share", "mask")
    assert there == [f"site-{i}" for i in range(5) if not (lost and i == 3)]
    assert [refusal.site for refusal in records[0].refusals] == ["site-3"]
    assert stage in records[0].refusals[0].reason
    names = [f"site-{i}" for i in range(5) if not (stage == "advertise" and i == 3)]
    parts = dict(zip(names, coded, strict=True))
    assert digest(last) == plain_sum([parts[name] for name in there])


@pytest.mark.parametrize(
    ("stage", "rounds"), [("unmask", 1), pytest.param("mask", 4, marks=pytest.mark.long)]
)
def test_of_three_sites_none_may_be_lost_and_after_three_rounds_the_run_stops(
    stage: str, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(monkeypatch, stage, {"site-1"})
    with pytest.raises(RunError, match="in a row ended without a sum"):
        run(tmp_path, masked(**{"federation.rounds": rounds}))
    latest = CheckpointStore(tmp_path / "checkpoints").latest()
    assert latest is not None
    assert latest.progress.round == min(rounds, 3) - 1


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have a site fail in a stage once."""

    def arm(stage: str, name: str) -> None:
        plain, left = MaskedSite.answer, [1]

        def answer(self: MaskedSite, asked: masking.StageAsked) -> RecordDict:
            if asked.stage == stage and self.session.site.name == name and left:
                left.pop()
                msg = f"lost in stage {stage}"
                raise RunError(msg)
            return plain(self, asked)

        monkeypatch.setattr(MaskedSite, "answer", answer)

    return arm


def test_a_round_of_which_nothing_was_masked_is_tried_again_without_training(
    tmp_path: Path, once: Callable[[str, str], None], coded: list[Coded]
) -> None:
    once("share", "site-1")
    last, records = run(tmp_path, masked(**{"federation.rounds": 1}))
    assert len(coded) == 3, "what was trained is masked in the second attempt"
    assert digest(last) == plain_sum(coded)
    assert len(records[0].sites) == 3
    assert [one.site for one in records[0].refusals] == ["site-1"]


@pytest.mark.parametrize("stage", ["mask", pytest.param("unmask", marks=pytest.mark.long)])
def test_a_lost_round_is_counted_and_the_run_goes_on_from_the_same_model(
    stage: str, tmp_path: Path, once: Callable[[str, str], None], coded: list[Coded]
) -> None:
    once(stage, "site-1")
    last, records = run(tmp_path, masked(**{"federation.rounds": 3}))
    assert [len(record.sites) for record in records] == [0, 3, 3, 0]
    assert "Nothing of any site was revealed" in records[0].refusals[-1].reason
    told = ([(r.site, r.asked) for r in record.refusals] for record in records)
    said = lost_words((), missed_rounds(told), rounds=3)
    assert said.startswith("with 1 of 3 rounds lost (no sum)")
    assert digest(coded[3].start) == digest(coded[0].start), "round 2 starts where round 1 did"
    require_exact(coded[3:], last, sites=3, rounds=2)


def test_what_a_hostile_server_tries_stands_in_the_audit_log_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.server.rounds import masked_stages

    plain = masked_stages.pack_asked

    def lower(asked: masking.StageAsked) -> RecordDict:
        if asked.stage == "share":  # the threshold stands first
            given = (1).to_bytes(8, "big") + asked.given[8:]
            asked = masking.StageAsked(
                asked.digest, asked.run, asked.round, asked.attempt, asked.stage, given
            )
        return plain(asked)

    monkeypatch.setattr(masked_stages, "pack_asked", lower)
    with pytest.raises(RunError, match="low-threshold"):
        run(tmp_path, masked())
    for folder in sorted(tmp_path.glob("sites/*")):
        lines = (folder / "audit" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        verdicts = [json.loads(line).get("verdict", "") for line in lines]
        assert any("low-threshold" in verdict for verdict in verdicts)


def test_a_site_that_moves_too_far_leaves_the_round(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"out-of-range.*largest_change"):
        run(tmp_path, masked(**{"federation.masks.largest_change": 1e-6}))


def test_a_site_without_its_peers_keys_does_not_mask(tmp_path: Path) -> None:
    folders = write_sites(tmp_path / "sites")
    with open_grid(folders, masked(), ALONE) as grid:
        (folders[0] / "peers.json").unlink()
        with pytest.raises(RunError, match=r"peers\.json"):
            run_federation(grid, masked(), tmp_path / "checkpoints")


@pytest.mark.long
def test_heart_disease_is_learned_from_exact_sums(
    shared_data: Path, tmp_path: Path, coded: list[Coded]
) -> None:
    from tests.support.studies.built_in import built_in

    from wardround.simulations.experiment.simulate import SimulationRequest, simulate

    study = built_in("heart-disease", **{"simulation__compare": False, "evaluation__keep": "last"})
    hidden = with_changes(study, {"federation.secure_aggregation": True})
    models, rounds = [], study.federation.rounds
    for name, one in (("clear", study), ("masked", hidden)):
        simulate(SimulationRequest(one, tmp_path / name, ALONE, shared_data))
        store = CheckpointStore(tmp_path / name / "checkpoints" / "federated")
        models.append(dict(store.model(rounds)))
    assert rounds == 15
    require_exact(coded, models[1], sites=4, rounds=rounds)
    assert difference(*models) < 1e-3
    clear, without = (accuracy_of(tmp_path / name) for name in ("clear", "masked"))
    assert abs(clear - without) <= 0.005


def accuracy_of(run: Path) -> float:
    """Return the accuracy of the federated model on the test patients of all sites."""
    with (run / "metrics.csv").open(encoding="utf-8") as stream:
        rows = [
            row
            for row in csv.DictReader(stream)
            if (row["model"], row["split"], row["metric"]) == ("federated", "test", "accuracy")
            and row["site"] == "all sites"
        ]
    return float(rows[-1]["value"])
