"""A server that asks again and again, in study after study, what a site's monitoring has found.

A word is decided once a period and kept: who asks a hundred times reads the same one, and the noise
cannot be averaged away. A site says nothing at all unless its policy allows it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hospitals.hospital import STUDY, ask, log_of, write_policy, write_site

from wardround.client.app import close_sessions
from wardround.client.egress.guard import Exactly, MessageSchema, check_message
from wardround.client.policy.monitoring_word import (
    FOLDER,
    TOLD,
    draw_word,
    note_look,
    told_words,
    word_of_period,
)
from wardround.client.policy.policy import Policy
from wardround.common.errors import GuardError, PolicyError, RunError
from wardround.common.messages.instructions import DESCRIBE
from wardround.common.messages.replies import (
    MONITORING_WORDS,
    SiteInfo,
    pack_site_info,
    unpack_site_info,
)
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks
NOISED = Policy(monitoring="noised", monitoring_epsilon=1.0, largest_monitoring_epsilon=4.0)
EXACT = Policy(monitoring="exact")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    close_sessions()
    yield
    close_sessions()


def found_in(state: Path, period: str, is_alarm: bool) -> None:
    folder = state / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    note_look(folder, period, is_alarm)


def other_study(number: int) -> Study:
    content = STUDY.model_dump(exclude_defaults=True)
    content["study"]["name"] = f"table-{number}"
    return parse_study(content)


def said_to(folder: Path, study: Study) -> str:
    return unpack_site_info(ask(folder, DESCRIBE, study=study)).monitoring


def test_by_default_nothing_is_said_however_often_it_is_asked(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north")
    found_in(folder / "state", "2026-W40", is_alarm=True)
    assert {said_to(folder, STUDY) for _ in range(3)} == {""}
    assert not (folder / "state" / FOLDER / TOLD).exists()


def test_every_study_is_told_the_one_word_of_the_period_and_the_log_has_it_once(
    tmp_path: Path,
) -> None:
    studies = [other_study(number) for number in range(3)]
    digests = ", ".join(f'"{study.digest}"' for study in studies)
    folder = write_site(tmp_path / "north", monitoring='"noised"', approved=f"[{digests}]")
    found_in(folder / "state", "2026-W40", is_alarm=True)
    words = {said_to(folder, study) for study in studies for _ in range(2)}
    assert len(words) == 1
    assert words <= {"noised alarm", "noised quiet"}
    assert [told.period for told in told_words(folder / "state")] == ["2026-W40"]
    kinds = [entry.event.kind for entry in log_of(folder)]
    assert kinds.count("monitoring") == 1


def test_a_study_that_protects_its_patients_is_told_no_exact_word(tmp_path: Path) -> None:
    found_in(tmp_path, "2026-W40", is_alarm=True)
    assert word_of_period(tmp_path, EXACT, private=True) == ("", False)
    assert told_words(tmp_path) == []
    assert word_of_period(tmp_path, EXACT, private=False) == ("alarm", True)
    assert word_of_period(tmp_path, EXACT, private=True) == ("", False)


def test_an_exact_word_is_not_noised_afterwards_and_a_noised_one_never_told_exactly(
    tmp_path: Path,
) -> None:
    found_in(tmp_path, "2026-W40", is_alarm=True)
    assert word_of_period(tmp_path, EXACT, private=False) == ("alarm", True)
    assert word_of_period(tmp_path, NOISED, private=False) == ("", False)
    found_in(tmp_path, "2026-W41", is_alarm=True)
    word, is_new = word_of_period(tmp_path, NOISED, private=False)
    assert is_new
    assert word_of_period(tmp_path, EXACT, private=False) == (word, False)


@given(st.lists(st.tuples(st.integers(1, 52), st.booleans()), max_size=10))
@settings(max_examples=6, deadline=None)
def test_no_order_of_periods_spends_more_than_the_cap_or_says_two_words_of_one(
    tmp_path_factory: pytest.TempPathFactory, looks: list[tuple[int, bool]]
) -> None:
    state = tmp_path_factory.mktemp("state")
    said: dict[str, set[str]] = {}
    for week, is_alarm in looks:
        period = f"2026-W{week:02d}"
        found_in(state, period, is_alarm)
        word, _ = word_of_period(state, NOISED, private=True)
        if word:
            said.setdefault(period, set()).add(word)
    assert all(len(words) == 1 for words in said.values())
    told = told_words(state) if looks else []
    assert sum(one.epsilon for one in told) <= NOISED.largest_monitoring_epsilon
    assert [one.period for one in told] == sorted({one.period for one in told})


def test_the_noised_word_is_true_as_often_as_its_epsilon_says() -> None:
    drawn = [draw_word("2026-W40", True, NOISED, ()) for _ in range(400)]
    share = sum(one is not None and one.word == "noised alarm" for one in drawn) / len(drawn)
    assert 0.63 < share < 0.83  # .731, of 400 draws four standard deviations either way


def test_a_word_that_cannot_be_written_down_or_read_is_not_said(tmp_path: Path) -> None:
    found_in(tmp_path, "2026-W40", is_alarm=True)
    (tmp_path / FOLDER / TOLD).write_text("no line of it\n")
    with pytest.raises(PolicyError, match="monitoring says nothing"):
        word_of_period(tmp_path, EXACT, private=False)


def test_a_torn_last_line_is_written_over(tmp_path: Path) -> None:
    found_in(tmp_path, "2026-W40", is_alarm=False)
    (tmp_path / FOLDER / TOLD).write_text('{"period": "2026-W3')
    assert word_of_period(tmp_path, EXACT, private=False) == ("quiet", True)
    assert [told.word for told in told_words(tmp_path)] == ["quiet"]


def test_a_site_goes_on_with_a_study_where_the_table_of_words_is_damaged(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north", monitoring='"exact"')
    found_in(folder / "state", "2026-W40", is_alarm=True)
    (folder / "state" / FOLDER / TOLD).write_text("{}\n")
    assert said_to(folder, STUDY) == ""
    (folder / "state" / FOLDER / TOLD).unlink()
    write_policy(folder, monitoring='"exact"')
    assert said_to(folder, STUDY) == "alarm"


@pytest.mark.parametrize("word", ["ALARM", "noised", "quiet ", "p0042 has pneumonia", "x" * 5000])
def test_no_other_word_passes_the_guard_or_the_server(word: str) -> None:
    content = pack_site_info(SiteInfo("north", "1", STUDY.digest, 10, monitoring=word))
    header = {
        "site": Exactly("north"),
        "wardround": Exactly("1"),
        "digest": Exactly(STUDY.digest),
        "examinations": Exactly(10),
        "monitoring": Exactly("alarm"),
    }
    with pytest.raises(GuardError):
        check_message(content, MessageSchema({"header": header}), 100_000)
    with pytest.raises(RunError):
        unpack_site_info(content)


def test_each_word_that_may_be_said_is_understood() -> None:
    for word in ("", *MONITORING_WORDS):
        content = pack_site_info(SiteInfo("north", "1", STUDY.digest, 10, monitoring=word))
        assert unpack_site_info(content).monitoring == word
        assert isinstance(content, RecordDict)
        assert isinstance(content["header"], ConfigRecord)
