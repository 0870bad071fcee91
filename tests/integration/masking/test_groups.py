"""Runs whose server learns a sum of each group of hospitals, and decides over them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.integration.masking.test_runs import MASKED, run
from tests.support.hospitals.table_sites import study_for

from wardround.client.egress.masking import MaskedSite
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import Facts, judge
from wardround.common.errors import StudyError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.arithmetic import distance
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.study.explain.study import explain_study
from wardround.common.study.study import Study

SITES = 9
GROUPS: dict[str, object] = {
    **MASKED,
    "federation.masks.groups": 3,
    "federation.minimum_sites": SITES,
    "federation.options.assumed_hostile": 1,
    "federation.rounds": 2,
}


def grouped(strategy: str = "trimmed-mean", **changes: object) -> Study:
    return study_for(strategy, **{**GROUPS, **changes})


def test_a_run_in_groups_ends_in_a_model_and_is_measured(tmp_path: Path) -> None:
    model, records = run(tmp_path, grouped(), sites=SITES)
    assert all(len(record.sites) == SITES for record in records if record.sites)
    assert all(one.site == "all sites" for record in records for one in record.measurements)
    assert all(torch.isfinite(tensor).all() for tensor in model.values())


@pytest.mark.long
def test_one_hospital_that_spoils_its_update_moves_the_mean_and_not_the_rule_over_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, _ = run(tmp_path / "honest", grouped(), sites=SITES)
    plain = MaskedSite._encode

    def spoilt(
        self: MaskedSite, layout: VectorLayout, update: SiteUpdate, instruction: Instruction
    ) -> Words:
        if self.session.site.name.endswith("1"):
            moved = {
                n: t + 5.0 if t.is_floating_point() else t for n, t in update.parameters.items()
            }
            update = replace(update, parameters=moved)
        return plain(self, layout, update, instruction)

    monkeypatch.setattr(MaskedSite, "_encode", spoilt)
    robust, _ = run(tmp_path / "robust", grouped(), sites=SITES)
    mean = study_for("fedavg", **{**MASKED, "federation.rounds": 2})
    moved, _ = run(tmp_path / "mean", mean, sites=SITES)
    assert distance(robust, honest) < distance(moved, honest) / 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation.masks.groups": 2}, "needs 3 of them"),
        ({"federation.options.assumed_hostile": 2}, "needs 5 of them"),
        ({"federation.minimum_sites": 8}, "set it to 9"),
        ({"federation.masks.smallest_group": 4}, "set it to 12"),
        ({"federation.strategy": "fedavg"}, "takes the mean of all"),
        ({"federation.server_optimiser": "dynamic"}, "the sum of all hospitals beside it"),
        ({"federation.masks.most_sites": 8}, "raise the latter"),
    ],
)
def test_groups_that_could_not_be_are_refused_with_the_remedy(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(StudyError, match=reason):
        grouped(**changes)
    with pytest.raises(StudyError, match="no effect without groups"):
        study_for("fedavg", **{**MASKED, "federation.masks.smallest_group": 4})


def test_explain_says_what_groups_cost_in_hiding() -> None:
    page = " ".join(explain_study(grouped()).split())
    assert "into 3 groups" in page
    assert "hides in its group, and no longer among all" in page
    assert "one drawing in 28" in page  # 1 / (8 over 2), with 2 of 9 that help


def test_a_policy_may_ask_for_larger_sums() -> None:
    policy = Policy(smallest_sum=5, privacy_required=False)
    denied = {said.rule: said for said in judge(policy, grouped(), Facts()) if not said.allowed}
    assert "sums of 3 sites or more" in denied["secure aggregation"].reason
    larger = grouped(**{"federation.masks.smallest_group": 5, "federation.minimum_sites": 15})
    assert all(
        said.allowed for said in judge(policy, larger, Facts()) if said.rule == "secure aggregation"
    )


def test_a_run_in_words_of_sixteen_bits_learns_as_the_plain_one(tmp_path: Path) -> None:
    equal = {"federation.aggregation": "mean", "federation.rounds": 2}
    narrow: dict[str, object] = {
        **MASKED,
        "federation.masks.word_bits": 16,
        "federation.masks.largest_change": 1.0,
        "federation.masks.most_sites": 3,
    }
    hidden, records = run(tmp_path / "narrow", study_for("fedavg", **equal, **narrow))
    plain, _ = run(tmp_path / "plain", study_for("fedavg", **equal))
    assert [len(record.sites) for record in records] == [3, 3, 0]
    largest = max(float((hidden[n].double() - plain[n].double()).abs().max()) for n in plain)
    assert 0 < largest < 2 * 2 / (2**13 - 1)  # two rounds, each within a step
