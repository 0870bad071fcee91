"""Introductions: which sites are refused before the first round."""

from pathlib import Path

import pytest
from tests.support.scripted_sites import ScriptedSite, federate, study_with

import wardround
from wardround.common.errors import DataError, RunError
from wardround.common.messages.replies import (
    Refusal,
    SiteInfo,
    pack_refusal,
    understand_each_other,
)


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
    other.site_info = SiteInfo("b", "9.0.1", study.digest, 10)
    with pytest.raises(RunError, match=r"b runs wardround 9\.0\.1.*only the last number"):
        federate(study, tmp_path, ScriptedSite("a", study), other)


def test_a_site_whose_version_differs_in_the_last_number_takes_part(tmp_path: Path) -> None:
    study, (major, minor, _) = study_with(), wardround.__version__.split(".")
    other = ScriptedSite("b", study)
    other.site_info = SiteInfo("b", f"{major}.{minor}.99", study.digest, 10)
    federate(study, tmp_path, ScriptedSite("a", study), other)


@pytest.mark.parametrize(
    ("ours", "theirs", "understood"),
    [
        ("1.2.3", "1.2.4", True),
        ("1.2.3", "1.3.0", False),
        ("1.2.3", "2.2.3", False),
        ("1.2.0", "1.20.0", False),
        ("1.3.0.dev1", "1.3.0.dev1", True),
        ("1.3.0.dev1", "1.3.0.dev2", False),
        ("1.3.0", "", False),
        ("1.3.0", "1.3", False),
    ],
)
def test_releases_of_one_series_understand_each_other(
    ours: str, theirs: str, understood: bool
) -> None:
    assert understand_each_other(ours, theirs) is understood
    assert understand_each_other(theirs, ours) is understood


def test_a_site_that_cannot_read_its_data_is_refused_before_the_first_round(
    tmp_path: Path,
) -> None:
    study = study_with()
    site = ScriptedSite("b", study)
    site.reply = lambda _: pack_refusal(Refusal("b", "data", "row 3 is empty"))  # type: ignore[method-assign] # a script
    with pytest.raises(DataError, match="b cannot take part: row 3 is empty"):
        federate(study, tmp_path, ScriptedSite("a", study), site)
