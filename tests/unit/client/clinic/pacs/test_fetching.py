"""Series as folders: each whole or not there, and none fetched anew."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset
from tests.support.clinic.dicom_series import make_series, write_series

from wardround.client.clinic.pacs.archive import (
    Archive,
    FoundSeries,
    FoundStudy,
    PacsAwayError,
    PacsError,
    StoredObject,
    StudyQuery,
)
from wardround.client.clinic.pacs.fetching import fetch_all


class _Archive:
    """Holds four series, whose objects it sends, sends in part, refuses or forgets."""

    name = "an archive"

    def __init__(self) -> None:
        self.is_away = False

    def ping(self) -> None:
        if self.is_away:
            msg = "away"
            raise PacsAwayError(msg)

    def find_studies(self, query: StudyQuery) -> list[FoundStudy]:
        return [FoundStudy("1.1")]

    def find_series(self, study_uid: str) -> list[FoundSeries]:
        some = [FoundSeries(study_uid, f"1.1.{n}", "MR", "T1 sagittal") for n in (1, 2, 3)]
        return [*some, FoundSeries(study_uid, "1.1.4", "CT", "t1")]

    def find_objects(self, study_uid: str, series_uid: str) -> list[StoredObject]:
        return []

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        paths = write_series(folder, make_series(1, slices=2))
        if series_uid == "1.1.2" or self.is_away:
            msg = "in part"
            raise PacsAwayError(msg)
        if series_uid == "1.1.3":
            msg = "refused"
            raise PacsError(msg)
        return paths

    def store(self, datasets: Sequence[Dataset]) -> None:
        return


def test_what_came_whole_is_there_and_nothing_else(tmp_path: Path) -> None:
    archive = _Archive()
    assert isinstance(archive, Archive)
    fetched = fetch_all(archive, StudyQuery(modality="MR"), "t1*", tmp_path / "out")
    assert (fetched.new, fetched.held) == (1, 0)
    assert fetched.failed == ("not all of its objects came", "refused")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.1.1"]
    again = fetch_all(archive, StudyQuery(modality="MR"), "t1*", tmp_path / "out")
    assert (again.new, again.held) == (0, 1)
    assert fetch_all(archive, StudyQuery(), "t2*", tmp_path / "out").new == 0


def test_an_archive_that_is_away_ends_it(tmp_path: Path) -> None:
    archive = _Archive()
    archive.is_away = True
    with pytest.raises(PacsAwayError, match="away"):
        fetch_all(archive, StudyQuery(), "*", tmp_path / "out")
