"""The counter of rounds without privacy of patients: never too few, whatever happens to a line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wardround.client.policy.approvals import Terms, decide
from wardround.client.policy.policy import approved_rounds, open_policy, rounds_of_approval
from wardround.client.policy.rules import DeniedError
from wardround.client.policy.trained_rounds import count_round, trained_rounds
from wardround.common.errors import PolicyError, RunError
from wardround.common.messages.instructions import Instruction
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study

ASKED = Instruction("a" * 64, "b" * 32, 1, {})


def counter(site: Path) -> Path:
    return site / "rounds" / f"{ASKED.digest}.jsonl"


def test_each_training_is_a_line_until_as_many_are_there_as_were_approved(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        count_round(tmp_path, replace(ASKED, round=number), allowed=3, durable=True)
        assert trained_rounds(tmp_path, ASKED.digest) == number
    with pytest.raises(
        DeniedError, match=r"3 rounds .* 3 are trained.*site approve aaaa"
    ) as refused:
        count_round(tmp_path, ASKED, allowed=3, durable=True)
    assert refused.value.code == "approval"
    assert trained_rounds(tmp_path, ASKED.digest) == 3
    count_round(tmp_path, ASKED, allowed=4, durable=False)
    assert trained_rounds(tmp_path, "c" * 64) == 0, "each study has its own"


@pytest.mark.parametrize("torn", [b'{"attempt":0,"rou', b"\0\0\0\0", b"{}"])
def test_a_line_without_its_end_began_no_training(tmp_path: Path, torn: bytes) -> None:
    count_round(tmp_path, ASKED, allowed=2, durable=False)
    with counter(tmp_path).open("ab") as stream:
        stream.write(torn)
    assert trained_rounds(tmp_path, ASKED.digest) == 1
    count_round(tmp_path, ASKED, allowed=2, durable=False)
    assert trained_rounds(tmp_path, ASKED.digest) == 2
    lines = [json.loads(line) for line in counter(tmp_path).read_bytes().splitlines()]
    assert [line["run"] for line in lines] == [ASKED.run] * 2


def test_lines_that_somebody_wrote_over_are_counted_too(tmp_path: Path) -> None:
    count_round(tmp_path, ASKED, allowed=9, durable=False)
    counter(tmp_path).write_bytes(b"nonsense\n\nand more\n")
    assert trained_rounds(tmp_path, ASKED.digest) == 3


def test_what_cannot_be_counted_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wardround.common.files.json_lines.os.fsync", full)
    with pytest.raises(RunError, match="Nothing is trained"):
        count_round(tmp_path, ASKED, allowed=9, durable=True)
    assert trained_rounds(tmp_path, ASKED.digest) == 0


# --- How many are approved ------------------------------------------------------------------------
@pytest.fixture
def study(tiny_study) -> Study:  # type: ignore[no-untyped-def]
    return load_study(tiny_study.study)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "north").mkdir()
    return tmp_path / "north"


def test_every_approval_adds_its_rounds_and_one_in_the_policy_counts_once(
    site: Path, study: Study
) -> None:
    policy = site / "policy.toml"
    policy.write_text(
        f'privacy_required = false\napproved = ["{study.digest}", "{study.digest}"]\n'
    )
    assert approved_rounds(site, study) == 4
    decide(site, study.digest, "approved", study, Terms(4, ("rounds: 4",)))
    assert approved_rounds(site, study) == 8
    decide(site, study.digest, "rejected")
    assert approved_rounds(site, study) == 8, "whether it may train at all is another rule"
    policy.write_text("privacy_required = false\nrounds_factor = 3.5\n")
    assert approved_rounds(site, study) == 4, "what was approved stays what it was"
    decide(site, study.digest, "approved")
    assert approved_rounds(site, study) == 4 + 7
    assert approved_rounds(site, with_changes(study, {"federation.seed": 5})) == 0


def test_under_privacy_of_patients_an_approval_is_for_the_rounds_of_the_study(
    site: Path, study: Study
) -> None:
    (site / "policy.toml").write_text("rounds_factor = 10.0\n")
    private = with_changes(study, {"privacy.mode": "patient", "privacy.noise_multiplier": 2.0})
    assert rounds_of_approval(open_policy(site), private) == 2
    assert rounds_of_approval(open_policy(site), study) == 20


def test_a_simulated_site_counts_none(site: Path, study: Study) -> None:
    text = 'simulated = true\napproved = "any"\nprivacy_required = false\n'
    (site / "policy.toml").write_text(text)
    assert approved_rounds(site, study) is None


@pytest.mark.parametrize("factor", ["0.5", "-1", "inf", "nan", "1e9"])
def test_a_factor_that_bounds_nothing_is_refused(site: Path, factor: str) -> None:
    (site / "policy.toml").write_text(f"rounds_factor = {factor}\n")
    with pytest.raises(PolicyError, match="rounds_factor"):
        open_policy(site)


# --- What a person is told ------------------------------------------------------------------------
def test_what_is_printed_is_what_the_record_holds_and_what_explain_prints(
    site: Path, study: Study, wardround: Callable[..., object], tmp_path: Path
) -> None:
    from wardround.client.policy.approvals import read_decisions

    (site / "site.toml").write_text('name = "north"\n')
    (site / "policy.toml").write_text("privacy_required = false\n")
    path = tmp_path / "study.toml"
    path.write_text(study.to_toml())
    explained = wardround("site", "explain", path, "--site", site).out  # type: ignore[attr-defined]
    said = wardround("site", "approve", path, "--site", site).out  # type: ignore[attr-defined]
    *lines, last = said.splitlines()
    assert 8 <= len(lines) <= 12
    assert "has approved" in last
    (decision,) = read_decisions(site)
    assert list(decision.terms) == lines
    assert decision.rounds == 4
    assert "\n".join(lines) in explained
    for word in ("rounds: an approval is for 4,", "patients", "privacy: none", "evaluated,"):
        assert word in said
    again = wardround("site", "approve", study.digest[:16], "--site", site).out  # type: ignore[attr-defined]
    assert "an approval is for 4, which with earlier ones makes 8" in again
    assert "trained already: 0 rounds of 4 that are approved" in again
    assert (site / "studies" / f"{study.digest}.toml").exists()
    unknown = wardround("site", "approve", "ab" * 32, "--site", site)
    assert unknown.code == 2  # type: ignore[attr-defined]
    assert "give the study's file" in unknown.err  # type: ignore[attr-defined]


def test_in_a_terminal_nothing_is_approved_before_a_person_says_yes(
    site: Path,
    study: Study,
    wardround: Callable[..., object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wardround.client.policy.approvals import read_decisions

    (site / "site.toml").write_text('name = "north"\n')
    (site / "policy.toml").write_text("privacy_required = false\n")
    path = tmp_path / "study.toml"
    path.write_text(study.to_toml())

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self, size: int = -1) -> str:
            return "n\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    assert wardround("site", "approve", path, "--site", site).code == 1  # type: ignore[attr-defined]
    assert read_decisions(site) == ()
    assert wardround("site", "approve", path, "--yes", "--site", site).code == 0  # type: ignore[attr-defined]
    assert len(read_decisions(site)) == 1
