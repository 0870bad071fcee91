"""Images that were sent: kept safe, bounded, named by no one but us."""

import os
from pathlib import Path

import pytest
from tests.support.clinic.dicom_series import make_series

from wardround.client.clinic.gateway import incoming
from wardround.client.clinic.gateway.finding import find_received, remove_answered
from wardround.client.clinic.gateway.incoming import IncomingFolder
from wardround.client.clinic.gateway.queue import DONE, WorkQueue
from wardround.client.clinic.pacs.archive import PacsAwayError, PacsError
from wardround.client.clinic.pacs.settings import LimitsTable, ServeTable

LIMITS = LimitsTable(series_objects=8, free_gigabytes=0)
RULES = ServeTable(modality="MR", settle_seconds=0)
MODEL = "ab" * 32


def test_no_name_of_a_folder_or_file_is_the_senders(tmp_path: Path) -> None:
    folder = IncomingFolder(tmp_path / "incoming", LIMITS)
    for one in make_series(1):
        assert folder.take(one) == 0
        assert folder.take(one) == 0  # again: the same file
    (place,) = (tmp_path / "incoming").iterdir()
    names = [place.name, *(path.name for path in place.iterdir())]
    assert len(names) == 9
    assert all("1.2.3" not in name and "CANARY" not in name for name in names)
    assert place.stat().st_mode & 0o077 == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", ["", "../../etc", "/etc/passwd", "1" * 65])
def test_an_object_without_proper_names_is_not_taken(
    keyword: str, value: str, tmp_path: Path
) -> None:
    folder = IncomingFolder(tmp_path / "incoming", LIMITS)
    (one,) = make_series(1, slices=1)
    setattr(one, keyword, value)
    with pytest.raises(PacsError, match="no DICOM identifier"):
        folder.take(one)
    assert not any((tmp_path / "incoming").iterdir())


def test_a_series_and_their_number_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = IncomingFolder(tmp_path / "incoming", LIMITS)
    *some, last = make_series(1, slices=9)
    for one in some:
        folder.take(one)
    with pytest.raises(PacsError, match="series_objects"):
        folder.take(last)
    monkeypatch.setattr(incoming, "_MOST_SERIES", 2)
    folder.take(make_series(2)[0])
    with pytest.raises(PacsAwayError, match="2 series wait"):
        folder.take(make_series(3)[0])


def test_what_was_sent_is_one_entry_and_goes_once_it_is_answered(tmp_path: Path) -> None:
    queue = WorkQueue(tmp_path / "queue.sqlite")
    folder = IncomingFolder(tmp_path / "incoming", LIMITS)
    for one in make_series(1):
        folder.take(one)
    find_received(folder, queue, RULES, MODEL)
    work = queue.next(MODEL)
    assert work is not None
    assert (work.study, work.series) == ("1.2.3.1", "1.2.3.1.1")
    queue.end(work, DONE)
    remove_answered(folder, work)
    assert folder.is_empty()
    assert not any((tmp_path / "incoming").iterdir())
    for one in make_series(1):  # sent again
        folder.take(one)
    find_received(folder, queue, RULES, MODEL)
    assert queue.next(MODEL) is None
    assert not any((tmp_path / "incoming").iterdir())
    queue.close()


def test_what_comes_while_a_series_is_answered_is_kept(tmp_path: Path) -> None:
    queue = WorkQueue(tmp_path / "queue.sqlite")
    folder = IncomingFolder(tmp_path / "incoming", LIMITS)
    *early, late = make_series(1)
    for one in early:
        folder.take(one)
    find_received(folder, queue, RULES, MODEL)
    work = queue.next(MODEL)
    assert work is not None
    folder.take(late)
    queue.end(work, DONE)
    remove_answered(folder, work)
    place = folder.place(work.study, work.series)
    os.utime(next(place.iterdir()))
    find_received(folder, queue, RULES, MODEL)
    again = queue.next(MODEL)
    assert again is not None
    assert again.objects != work.objects
    queue.close()


def test_what_no_rule_wants_is_removed(tmp_path: Path) -> None:
    queue = WorkQueue(tmp_path / "queue.sqlite")
    folder = IncomingFolder(tmp_path / "incoming", LIMITS)
    for number, changed in enumerate(({"Modality": "CT"}, {"Modality": "SEG"}, {"Rows": "x"}), 1):
        for one in make_series(number, slices=1):
            for keyword, value in changed.items():
                if keyword == "Rows":
                    del one.Rows
                else:
                    setattr(one, keyword, value)
            folder.take(one)
    find_received(folder, queue, RULES, MODEL)
    assert queue.next(MODEL) is None
    assert not any((tmp_path / "incoming").iterdir())
    queue.close()
