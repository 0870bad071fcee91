"""What a run is given from Python is looked at before anything is written."""

from pathlib import Path

import pytest
from tests.support.stage import table_study, write_table

import wardround as wr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": -1}, "workers = -1"),
        ({"workers": "x", "engine": "pool"}, "workers = 'x'"),
        ({"threads": 1.5}, "threads = 1.5"),
        ({"threads": True}, "threads = True"),
        ({"on_event": 3}, "on_event cannot be int"),
    ],
)
def test_a_wrong_value_is_refused_in_words_and_leaves_nothing(
    given: dict[str, object], words: str, tmp_path: Path
) -> None:
    study = table_study("wrong", write_table(tmp_path, 30, ("north", "south")), rounds=1)
    out = tmp_path / "run"
    for start in (wr.simulate, lambda *all_of, **named: list(wr.simulate_rounds(*all_of, **named))):
        with pytest.raises(wr.InputError, match=words):
            start(study, out, **given)
        assert not out.exists()


def test_changes_that_are_no_mapping_are_refused_in_words() -> None:
    study = wr.load_study("heart-disease")
    with pytest.raises(wr.StudyError, match="changes cannot be int"):
        study.with_changes(3)
    with pytest.raises(wr.InputError, match="unknown recipe of heart-disease 3"):
        wr.load_study("heart-disease", 3)
