"""Introductions: which sites are refused before the first round."""

from pathlib import Path

import pytest
from tests.support.scripted_sites import ScriptedSite, federate, study_with

from wardround.common.errors import DataError, RunError
from wardround.common.messages.replies import Refusal, SiteInfo, pack_refusal


def test_two_sites_with_one_name_are_refused(tmp_path: Path) -> None:
    study = study_with()
    with pytest.raises(RunError, match=r"same name \(a\): rename one in its site\.toml"):
        federate(study, tmp_path, ScriptedSite("a", study), ScriptedSite("a", study))


def test_a_site_with_another_study_is_refused(tmp_path: Path) -> None:
    study = study_with()
    other = ScriptedSite("b", study_with(rounds=9))
    with pytest.raises(RunError, match=r"b works on study .* give both the same study file"):
        federate(study, tmp_path, ScriptedSite("a", study), other)


def test_a_site_with_another_version_is_refused(tmp_path: Path) -> None:
    study = study_with()
    other = ScriptedSite("b", study)
    other.site_info = SiteInfo("b", "0.0.1", study.digest, 10)
    with pytest.raises(RunError, match=r"b runs wardround 0\.0\.1.*install the same version"):
        federate(study, tmp_path, ScriptedSite("a", study), other)


def test_a_site_that_cannot_read_its_data_is_refused_before_the_first_round(
    tmp_path: Path,
) -> None:
    study = study_with()
    site = ScriptedSite("b", study)
    site.reply = lambda _: pack_refusal(Refusal("b", "data", "row 3 is empty"))  # type: ignore[method-assign] # a script
    with pytest.raises(DataError, match="b cannot take part: row 3 is empty"):
        federate(study, tmp_path, ScriptedSite("a", study), site)
