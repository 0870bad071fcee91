"""Approvals: a study runs because a person of this hospital said so, and stops when they say so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from wardround.client.policy import approvals
from wardround.client.policy.approvals import (
    decide,
    full_digest,
    note_pending,
    pending_file,
    pending_studies,
    read_decisions,
)
from wardround.client.policy.policy import open_policy
from wardround.client.policy.rules import Facts, judge
from wardround.common.errors import InputError, PolicyError
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study


@pytest.fixture
def study(tiny_study) -> Study:  # type: ignore[no-untyped-def]
    return load_study(tiny_study.study)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / "policy.toml").write_text("privacy_required = false\n")
    return folder


def is_approved(site: Path, study: Study) -> tuple[bool, str]:
    verdict = next(
        one for one in judge(open_policy(site), study, Facts()) if one.rule == "approved"
    )
    return verdict.allowed, verdict.reason


def test_a_study_is_allowed_from_the_moment_it_is_approved(site: Path, study: Study) -> None:
    assert not is_approved(site, study)[0]
    decision = decide(site, study.digest, "approved")
    assert is_approved(site, study)[0]
    assert decision.account
    assert decision.date.tzinfo is not None


def test_a_rejection_wins_over_the_policy_and_over_an_earlier_approval(
    site: Path, study: Study
) -> None:
    (site / "policy.toml").write_text(f'approved = ["{study.digest}"]\n')
    assert is_approved(site, study)[0]
    decide(site, study.digest, "rejected")
    assert is_approved(site, study) == (False, f"{study.digest[:16]} was rejected")
    decide(site, study.digest, "approved")
    assert is_approved(site, study)[0]
    assert [one.verdict for one in read_decisions(site)] == ["rejected", "approved"]


def test_a_simulated_site_may_reject_too(site: Path, study: Study) -> None:
    (site / "policy.toml").write_text(
        'simulated = true\napproved = "any"\nprivacy_required = false\n'
    )
    assert is_approved(site, study)[0]
    decide(site, study.digest, "rejected")
    assert not is_approved(site, study)[0]


def test_a_policy_that_did_not_change_is_the_same_object(site: Path, study: Study) -> None:
    decide(site, study.digest, "approved")
    assert open_policy(site) is open_policy(site)


@pytest.mark.parametrize(
    "text",
    [
        "[[decision",
        'decision = "all"',
        '[[decision]]\ndigest = "any"\nverdict = "approved"\n',
        f'[[decision]]\ndigest = "{"a" * 64}"\nverdict = "maybe"\ndate = 2026-01-01T00:00:00Z\n'
        'account = "x"\n',
    ],
)
def test_with_a_damaged_file_nothing_is_allowed(site: Path, study: Study, text: str) -> None:
    decide(site, study.digest, "approved")
    (site / "approvals.toml").write_text(text)
    with pytest.raises(PolicyError, match=r"approvals\.toml"):
        open_policy(site)


def test_a_pending_study_is_listed_until_it_is_decided_on(site: Path, study: Study) -> None:
    note_pending(site, study)
    note_pending(site, study)
    (waiting,) = pending_studies(site)
    assert waiting.study.digest == study.digest
    assert waiting.path == pending_file(site, study.digest[:16])
    assert decide(site, study.digest, "rejected").study == "tiny"
    assert pending_studies(site) == ()


def test_a_server_cannot_fill_the_disk_with_pending_studies(
    site: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "MOST_PENDING", 3)
    for number in range(5):
        note_pending(site, with_changes(study, {"federation.seed": number}))
    assert len(pending_studies(site)) == 3
    monkeypatch.setattr(approvals, "_LARGEST_BYTES", 10)
    decide(site, pending_studies(site)[0].study.digest, "rejected")
    note_pending(site, with_changes(study, {"federation.seed": 9}))
    assert len(pending_studies(site)) == 2


def test_digits_must_name_one_study(site: Path, study: Study) -> None:
    note_pending(site, study)
    assert full_digest(site, study.digest[:16]) == study.digest
    assert full_digest(site, "ab" * 32) == "ab" * 32  # approved before it was ever asked for
    for digits in ("", study.digest[:15], "0" * 16, "../../etc", study.digest + "0"):
        with pytest.raises(InputError, match="16 digits"):
            full_digest(site, digits)
        assert pending_file(site, digits) is None


def test_the_commands_list_explain_approve_and_reject(
    site: Path,
    study: Study,
    wardround: Callable[..., object],
) -> None:
    def run(*words: object) -> object:
        return wardround("site", *words)

    note_pending(site, study)
    said = run("pending", site)
    assert study.digest[:16] in said.out  # type: ignore[attr-defined]
    assert "site explain" in said.out  # type: ignore[attr-defined]
    explained = run("explain", study.digest[:16], "--site", site)
    assert "Your hospital would be asked" in explained.out  # type: ignore[attr-defined]
    approved = run("approve", study.digest[:16], "--site", site)
    assert f"has approved {study.digest} (tiny)" in approved.out  # type: ignore[attr-defined]
    assert is_approved(site, study)[0]
    assert "No study waits" in run("pending", site).out  # type: ignore[attr-defined]
    assert run("reject", study.digest[:16], "--site", site).code == 0  # type: ignore[attr-defined]
    assert not is_approved(site, study)[0]
    assert run("approve", study.digest[:8], "--site", site).code == 2  # type: ignore[attr-defined]
    assert run("approve", study.digest, "--site", site.parent).code == 2  # type: ignore[attr-defined]


def test_who_approves_is_told_what_rule_refuses_the_study_all_the_same(
    site: Path, study: Study, tiny_study: object, wardround: Callable[..., object]
) -> None:
    (site / "policy.toml").write_text("privacy_required = true\n")
    said = wardround("site", "approve", tiny_study.study, "--site", site)  # type: ignore[attr-defined]
    assert said.code == 0, said.err  # type: ignore[attr-defined]
    last = said.out.splitlines()[-1]  # type: ignore[attr-defined]
    assert f"has approved {study.digest} (tiny). This site refuses it all the same (" in last
    assert "privacy: privacy.mode" in last
    assert "change policy.toml" in last
    assert is_approved(site, study)[0]  # the decision stands: the policy may be changed
