"""Hospitals whose updates leave under masks, asked as a server asks them, honest or not."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    context_of,
    instruction_for,
    refusal_of,
    said_by,
    write_policy,
    write_site,
)

from wardround.client.app import app, close_sessions
from wardround.client.doctor.terms import terms_of
from wardround.client.egress import masking
from wardround.client.egress.masking import MASKING_FOLDER
from wardround.common.flower.messages.content import from_bytes, to_bytes
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.instructions import EVALUATE, TRAIN, Instruction, new_run
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.masking import (
    AGREE,
    MASK,
    MASKING,
    SHARE,
    UNMASK,
    StageAsked,
    pack_asked,
    unpack_said,
)
from wardround.common.parameters.arithmetic import difference
from wardround.common.parameters.schema import schema
from wardround.common.privacy.secure_aggregation.messages import Advertisement, read_signed
from wardround.common.privacy.secure_aggregation.server import ServerRound
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.masking import plan_masking
from wardround.simulations.experiment.federation import introduce

MASKED = with_changes(STUDY, {"federation.secure_aggregation": True, "evaluation.keep": "last"})
NAMES = ("east", "north", "west")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


@dataclass
class Consortium:
    """Three hospitals, and a server that goes through a round with them."""

    root: Path
    answers: dict[str, RecordDict] = field(default_factory=dict)
    given: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        approved = {"approved": f'["{MASKED.digest}"]'}
        self.folders = {name: write_site(self.root / name, 60, **approved) for name in NAMES}
        self.identities = introduce(list(self.folders.values()))
        self.instruction = instruction_for(self.folders["north"], study=MASKED)

    @property
    def layout(self) -> VectorLayout:
        plan = plan_masking(MASKED)
        assert plan is not None
        return VectorLayout.of(MASKED, plan, schema(self.instruction.parameters))

    def train(self, name: str, instruction: Instruction | None = None) -> RecordDict:
        return ask(self.folders[name], TRAIN, instruction or self.instruction, MASKED)

    def asked(self, stage: str, given: bytes, **changes: object) -> StageAsked:
        about = self.instruction
        plain = StageAsked(about.digest, about.run, about.round, about.attempt, stage, given)
        return replace(plain, **changes)  # type: ignore[arg-type] # of any field

    def send(self, name: str, asked: StageAsked) -> RecordDict:
        claim_identity(1)
        message = Message(pack_asked(asked), 7, MASKING)
        stamp(message, "message-1")
        reply = app(message, context_of(self.folders[name], MASKED))
        assert not reply.has_error()
        return reply.content

    def go(self, until: str = "") -> "Consortium":
        """Go through the stages before one."""
        signed = {name: unpack_said(self.train(name)).signed for name in NAMES}
        first = read_signed(Advertisement, signed["north"], self.identities)
        self.server = ServerRound(first.context, self.layout.configuration, self.identities)
        for one in signed.values():
            self.server.take_advertisement(one)
        roster = self.server.close_roster()
        self.given[SHARE] = dict.fromkeys(NAMES, roster)
        for stage in (SHARE, MASK, AGREE, UNMASK):
            if stage == until:
                break
            for name in NAMES:
                self._take(stage, self.send(name, self.asked(stage, self.given[stage][name])))
            self._close(stage)
        return self

    def _take(self, stage: str, content: RecordDict) -> None:
        said = unpack_said(content)
        if said.words is not None:
            self.server.take_masked(said.signed, said.words)
        elif stage == SHARE:
            self.server.take_shares(said.signed)
        elif stage == AGREE:
            self.server.take_agreement(said.signed)
        else:
            self.server.take_unmasking(said.signed)

    def _close(self, stage: str) -> None:
        if stage == SHARE:
            self.given[MASK] = self.server.close_shares()
        elif stage == MASK:
            self.given[AGREE] = dict.fromkeys(NAMES, self.server.close_masked())
        elif stage == AGREE:
            self.given[UNMASK] = dict.fromkeys(NAMES, self.server.close_agreements())

    def require_refused(self, name: str, content: RecordDict, word: str) -> None:
        """A refusal says "masking" and no more; the hospital's audit log names what was tried."""
        assert refusal_of(content) == (name, "masking", "")
        assert ("refusal", f"deny: secure aggregation, {word}") in said_by(self.folders[name])


@pytest.fixture
def three(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


def test_a_round_of_hospitals_gives_the_sum_and_each_step_is_written_down(
    three: Consortium,
) -> None:
    three.go()
    model, told = three.layout.decode(three.server.unmask(), three.instruction.parameters)
    assert told.examinations > 60
    assert told.metrics is None, "a policy with metrics = 'values' puts no sums in"
    assert difference(model, three.instruction.parameters) > 1e-3
    for folder in three.folders.values():
        kinds = [kind for kind, verdict in said_by(folder) if verdict == "allow"]
        assert kinds[-5:] == ["masking", "masking", "update", "masking", "masking"]


def test_a_hospital_that_starts_again_says_the_same_and_does_not_train_twice(
    three: Consortium,
) -> None:
    three.go()
    first = [to_bytes(three.train("north"))]
    first += [
        to_bytes(three.send("north", three.asked(s, three.given[s]["north"])))
        for s in (SHARE, MASK, AGREE, UNMASK)
    ]
    close_sessions()
    again = [to_bytes(three.train("north"))]
    again += [
        to_bytes(three.send("north", three.asked(s, three.given[s]["north"])))
        for s in (SHARE, MASK, AGREE, UNMASK)
    ]
    # The report of the audit log is another each time; what the protocol says is not.
    assert [spoken(one) for one in first] == [spoken(one) for one in again]
    trained = three.folders["north"].glob("rounds/*.jsonl")
    assert sum(len(path.read_text().splitlines()) for path in trained) == 1


def spoken(content: bytes) -> tuple[str, bytes, bytes]:
    said = unpack_said(from_bytes(content))
    return said.stage, said.signed, b"" if said.words is None else said.words.tobytes()


def test_a_threshold_of_one_is_refused_and_audited(three: Consortium) -> None:
    three.go(until=SHARE)
    lower = (1).to_bytes(8, "big") + three.given[SHARE]["north"][8:]
    three.require_refused("north", three.send("north", three.asked(SHARE, lower)), "low-threshold")


def test_a_second_roster_is_refused_and_audited(three: Consortium) -> None:
    three.go(until=MASK)
    other = (2).to_bytes(8, "big") + three.given[SHARE]["north"][8:]
    three.require_refused("north", three.send("north", three.asked(SHARE, other)), "other-roster")


def test_a_round_that_was_masked_is_not_tried_again(three: Consortium) -> None:
    three.go(until=AGREE)
    retry = replace(three.instruction, attempt=1)
    three.require_refused("north", three.train("north", retry), "masked-before")


def test_an_attempt_that_is_over_and_a_round_that_is_over_stay_so(three: Consortium) -> None:
    three.train("north", replace(three.instruction, round=2, attempt=1))
    old = replace(three.instruction, round=2, attempt=0)
    three.require_refused("north", three.train("north", old), "old-attempt")
    three.require_refused("north", three.train("north"), "replayed-round")
    late = three.asked(SHARE, b"", round=1)
    three.require_refused("north", three.send("north", late), "replayed-round")


def test_the_same_update_of_a_study_started_again_is_not_masked_twice(three: Consortium) -> None:
    three.go()
    three.instruction = replace(three.instruction, run=new_run())
    three.go(until=MASK)
    refused = three.send("east", three.asked(MASK, three.given[MASK]["east"]))
    three.require_refused("east", refused, "same-update")


def test_another_model_in_one_attempt_is_refused(three: Consortium) -> None:
    three.train("north")
    moved = {name: tensor + 1 for name, tensor in three.instruction.parameters.items()}
    other = replace(three.instruction, parameters=moved)
    three.require_refused("north", three.train("north", other), "two-models")


@pytest.mark.parametrize("stage", [SHARE, MASK, AGREE, UNMASK])
def test_a_stage_before_its_turn_is_refused(stage: str, three: Consortium) -> None:
    three.require_refused("north", three.send("north", three.asked(stage, b"")), "out-of-turn")


def test_nothing_is_said_whose_state_is_not_on_the_disk(
    three: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.go(until=MASK)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(masking, "replace_file", full)
    content = three.send("north", three.asked(MASK, three.given[MASK]["north"]))
    assert refusal_of(content)[0] == "north"
    assert "masked" not in content


def test_what_a_site_keeps_can_be_read_by_nobody_else(three: Consortium) -> None:
    three.go(until=AGREE)
    kept = sorted((three.folders["north"] / MASKING_FOLDER).rglob("*"))
    assert {path.name for path in kept} == {three.instruction.run, "round", "words", "masked"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


def test_a_validation_in_the_clear_is_refused(three: Consortium) -> None:
    evaluation = replace(three.instruction, round=0, attempt=0)
    content = ask(three.folders["north"], EVALUATE, evaluation, MASKED)
    assert refusal_of(content)[1] == "evaluations"


def test_a_policy_can_require_masks(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north", 60)
    write_policy(folder, secure_aggregation='"required"')
    instruction = instruction_for(folder)
    assert refusal_of(ask(folder, TRAIN, instruction))[1] == "policy"
    assert ("refusal", "deny: secure aggregation") in said_by(folder)


def test_a_run_that_names_another_folder_is_refused(three: Consortium) -> None:
    for run in ("../../../keys", "a" * 31, "A" * 32):
        content = three.send("north", three.asked(SHARE, b"", run=run))
        assert refusal_of(content)[0] == "north"
    assert not np.any([path.name == "keys" for path in three.root.iterdir()])


def test_what_a_person_reads_before_approving_says_that_only_sums_leave(three: Consortium) -> None:
    said = str(terms_of(three.folders["north"], MASKED))
    assert "the server learns sums of at least 3 sites" in said
    assert "in the sum of all sites alone" in said
    assert "in multiples of" not in said
