"""What a site remembers of the models that it was sent."""

from pathlib import Path

import pytest

from wardround.client.policy.known_parent import require_known_parent
from wardround.client.policy.received_models import note_received, received_models
from wardround.client.policy.rules import DeniedError
from wardround.common.errors import RunError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

STUDY, ONE, TWO = "a" * 64, "1" * 64, "2" * 64


def child(model: str) -> Study:
    return parse_study(
        {
            "study": {"name": "goes on", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [8, 8]},
            "model": {"network": "small-cnn", "weights_sha256": "c" * 64},
            "continual": {"wave": 2, "parent": STUDY, "model": model},
        }
    )


def test_each_model_of_a_study_is_a_line_once(tmp_path: Path) -> None:
    for model in (ONE, TWO, ONE):
        note_received(tmp_path, STUDY, model)
    assert received_models(tmp_path, STUDY) == {ONE, TWO}
    assert received_models(tmp_path, "b" * 64) == frozenset()
    path = tmp_path / "received" / STUDY
    assert path.read_text() == f"{ONE}\n{TWO}\n"
    assert path.stat().st_mode & 0o077 == 0, "nobody else reads it"


def test_a_line_that_a_kill_has_torn_names_no_model(tmp_path: Path) -> None:
    note_received(tmp_path, STUDY, ONE)
    with (tmp_path / "received" / STUDY).open("a") as stream:
        stream.write("22222")
    assert received_models(tmp_path, STUDY) == {ONE}
    note_received(tmp_path, STUDY, TWO)
    assert received_models(tmp_path, STUDY) == {ONE, TWO}


def test_a_file_that_cannot_be_read_stops_the_site(tmp_path: Path) -> None:
    (tmp_path / "received" / STUDY).mkdir(parents=True)
    with pytest.raises(RunError, match="It says which models this site was sent"):
        received_models(tmp_path, STUDY)


def test_a_site_that_took_part_holds_a_claim_against_what_it_was_sent(tmp_path: Path) -> None:
    require_known_parent(tmp_path, child(TWO))  # it had no part in that study
    note_received(tmp_path, STUDY, ONE)
    require_known_parent(tmp_path, child(ONE))
    with pytest.raises(DeniedError, match=r"none of the 1 models .* is that one") as refused:
        require_known_parent(tmp_path, child(TWO))
    assert refused.value.code == "parent"


def test_more_models_than_a_study_sends_fill_no_disk(tmp_path: Path) -> None:
    for number in range(3):
        note_received(tmp_path, STUDY, f"{number:064x}", most=3)
    note_received(tmp_path, STUDY, f"{0:064x}", most=3)
    with pytest.raises(RunError, match="no more than 3 models"):
        note_received(tmp_path, STUDY, f"{3:064x}", most=3)
    assert len(received_models(tmp_path, STUDY)) == 3
