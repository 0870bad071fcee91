"""Hospitals whose updates leave under masks, asked as a server asks them, honest or not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.hospitals.hospital import (
    ask,
    instruction_for,
    refusal_of,
    said_by,
    write_policy,
    write_site,
)
from tests.support.hostile.consortium import MASKED, Consortium

from wardround.client.app import close_sessions
from wardround.client.doctor.terms import terms_of
from wardround.client.egress import masking
from wardround.client.site.idle_masks import MASKING_FOLDER, erase_idle
from wardround.common.flower.messages.content import from_bytes, to_bytes
from wardround.common.messages.instructions import EVALUATE, TRAIN, new_run
from wardround.common.messages.masking import AGREE, END, MASK, SHARE, UNMASK, unpack_said
from wardround.common.parameters.arithmetic import difference
from wardround.common.privacy.secure_aggregation.site_state import SiteRound


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


@pytest.fixture
def three(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


def test_a_round_of_hospitals_gives_the_sum_and_each_step_is_written_down(
    three: Consortium,
) -> None:
    three.go()
    found = three.layout.decode(three.server.unmask()[0].words, three.instruction.parameters)
    model, told = found.model, found.counted
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
    asked = [three.asked(s, three.given[s]["north"]) for s in (SHARE, MASK, AGREE, UNMASK)]
    first = [to_bytes(three.train("north")), *(to_bytes(three.send("north", a)) for a in asked)]
    close_sessions()
    again = [to_bytes(three.train("north")), *(to_bytes(three.send("north", a)) for a in asked)]
    # The report of the audit log is another each time; what the protocol says is not.
    assert [spoken(one) for one in first] == [spoken(one) for one in again]
    trained = three.folders["north"].glob("rounds/*.jsonl")
    assert sum(len(path.read_text().splitlines()) for path in trained) == 1


def secrets_of(three: Consortium, name: str) -> tuple[bytes, ...]:
    """Return the secrets and messages that a hospital keeps of its round."""
    (place,) = (three.folders[name] / MASKING_FOLDER).glob("*/round")
    kept = SiteRound.from_bytes(place.read_bytes())
    words = place.with_name("words")
    secrets = kept.mask_secret, kept.channel_secret, kept.self_seed, kept.sharing_seed
    messages = kept.roster, kept.delivered, kept.survivors
    return (*secrets, *messages, words.read_bytes() if words.exists() else b"")


def test_the_secrets_of_the_last_round_are_erased_when_the_server_says_that_it_is_over(
    three: Consortium,
) -> None:
    three.go()
    assert all(secrets_of(three, "north"))
    said = unpack_said(three.send("north", three.asked(END, b"")))
    assert (said.stage, said.signed) == (END, b"")
    assert not any(secrets_of(three, "north"))
    for stage in (SHARE, MASK, AGREE, UNMASK):
        answer = three.send("north", three.asked(stage, three.given[stage]["north"]))
        three.require_refused("north", answer, "replayed-round")
    three.require_refused("north", three.train("north"), "replayed-round")
    later = replace(three.instruction, attempt=1)
    three.require_refused("north", three.train("north", later), "masked-before")


def test_the_secrets_of_a_round_that_nobody_goes_on_with_are_erased(three: Consortium) -> None:
    three.go(until=AGREE)
    assert erase_idle(three.folders["north"], seconds=3600) == 0
    assert all(secrets_of(three, "north")[:6])
    assert erase_idle(three.folders["north"], seconds=-1) == 1
    assert not any(secrets_of(three, "north"))
    answer = three.send("north", three.asked(AGREE, three.given[AGREE]["north"]))
    three.require_refused("north", answer, "replayed-round")
    later = replace(three.instruction, attempt=1)
    three.require_refused("north", three.train("north", later), "masked-before")


def test_a_new_attempt_has_new_keys_and_no_new_training(three: Consortium) -> None:
    first = unpack_said(three.train("north")).signed
    words = secrets_of(three, "north")[-1]
    three.instruction = replace(three.instruction, attempt=1)
    assert unpack_said(three.train("north")).signed != first
    assert secrets_of(three, "north")[-1] == words
    trained = three.folders["north"].glob("rounds/*.jsonl")
    assert sum(len(path.read_text().splitlines()) for path in trained) == 1
    three.go()
    model = three.layout.decode(three.server.unmask()[0].words, three.instruction.parameters).model
    assert difference(model, three.instruction.parameters) > 1e-3


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


def test_a_validation_leaves_under_a_mask_and_never_in_the_clear(three: Consortium) -> None:
    evaluation = replace(three.instruction, round=0, attempt=0)
    content = ask(three.folders["north"], EVALUATE, evaluation, MASKED)
    assert set(content) == {"masking"}


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
