"""What a page tells of privacy is worked out beside it, and seldom."""

import threading

from tests.support.stage import wait_until
from tests.unit.server.operators.page.test_regions import a_record, a_run

from wardround.server.operators.messages import RunRecord
from wardround.server.operators.page import privacy_told
from wardround.server.operators.page.privacy_told import PrivacyTold


def test_a_page_does_not_wait_for_the_accountant_and_asks_it_seldom(monkeypatch) -> None:
    may_end, asked = threading.Event(), list[int]()

    def slowly(record: RunRecord) -> tuple[str, ...]:
        may_end.wait(20)
        asked.append(len(record.parts))
        return (f"{len(record.parts)} answers",)

    monkeypatch.setattr(privacy_told, "privacy_sentences", slowly)
    told, record = PrivacyTold(), a_record(a_run())
    assert told.words(record) == told.words(record) == privacy_told._AT_FIRST
    may_end.set()
    wait_until(lambda: told.words(record) == ("2 answers",))
    more = a_record(a_run())
    more = type(more)(more.details, more.study, more.server, more.parts * 2, more.values)
    assert told.words(more) == ("2 answers",), "ten seconds have not passed"
    ended = a_record(a_run("finished"))
    ended = type(more)(ended.details, more.study, more.server, more.parts, more.values)
    wait_until(lambda: told.words(ended) == ("4 answers",))
    assert asked == [2, 4]
