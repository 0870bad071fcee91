"""A series is answered by a model that may lack more than the series: the answer says what."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest
from tests.support.clinic.dicom_series import make_series, write_series
from tests.support.clinic.model_folders import CLASSIFIES, SEGMENTS, untrained_model
from tests.support.hospitals.blobs import blob_study

from wardround.client.clinic.gateway.answer import Desk, answer, require_servable
from wardround.client.clinic.gateway.queue import Work
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.pacs.archive import FoundSeries, FoundStudy, StoredObject, StudyQuery
from wardround.client.clinic.pacs.identity import series_digest
from wardround.common.errors import InputError
from wardround.common.study.loading import parse_study

pytest.importorskip("highdicom")
pytest.importorskip("fhir.resources")
AGE = {"name": "age", "mean": 50.0, "scale": 10.0}
BOTH = {"covariates": [AGE], "channels": ["t1", "t2"]}


class KeptArchive:
    """An archive that holds one series in files, and what is stored in it."""

    name = "kept"

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self.stored: list[pydicom.Dataset] = []

    def ping(self) -> None:
        """Answer."""

    def find_studies(self, query: StudyQuery) -> list[FoundStudy]:
        return []

    def find_series(self, study_uid: str) -> list[FoundSeries]:
        return []

    def find_objects(self, study_uid: str, series_uid: str) -> list[StoredObject]:
        every = [*map(pydicom.dcmread, self._files), *self.stored]
        return [
            StoredObject(str(one.SOPInstanceUID), str(one.SOPClassUID))
            for one in every
            if str(one.SeriesInstanceUID) == series_uid
        ]

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        folder.mkdir(parents=True)
        return [Path(shutil.copy(path, folder)) for path in self._files]

    def store(self, datasets: Sequence[pydicom.Dataset]) -> None:
        self.stored += datasets


def answered(tmp_path: Path, content: dict[str, dict[str, object]], slices: int) -> tuple[str, str]:
    """Return the report and the FHIR report of a series."""
    files = write_series(tmp_path / "series", make_series(1, slices=slices))
    archive = KeptArchive(files)
    predictor = load_predictor(untrained_model(tmp_path / "model", content), "cpu")
    seen: list[tuple[str, str]] = []
    desk = Desk(
        *(archive, predictor, None, tmp_path / "spool", tmp_path / "results"),
        watch=lambda series, source, images, said: seen.append(series),
    )
    objects = series_digest([str(pydicom.dcmread(path).SOPInstanceUID) for path in files])
    work = Work(1, "1.2.3.1", "1.2.3.1.1", objects, predictor.digest, 0, 0)
    assert answer(work, desk)
    assert not answer(work, desk), "it has its answer"
    assert seen == [("1.2.3.1.1", objects)], "what watches is shown a study once"
    report = next(one for one in archive.stored if one.Modality == "SR")
    (told,) = (tmp_path / "results").rglob("diagnostic-report.json")
    texts = " ".join(str(one.value) for one in report.iterall() if one.VR == "UT")
    return texts, str(json.loads(told.read_text())["conclusion"])


@pytest.mark.parametrize(("content", "slices"), [(CLASSIFIES, 1), (SEGMENTS, 8)])
def test_a_report_says_what_the_model_did_without(
    tmp_path: Path, content: dict[str, dict[str, object]], slices: int
) -> None:
    data = {**content["data"], **BOTH, "optional": ["age", "t2"]}
    for text in answered(tmp_path, {**content, "data": data}, slices):
        assert "Missing, and done without: age, t2" in text


def test_boxes_are_reported_and_counted(tmp_path: Path) -> None:
    _, told = answered(tmp_path, blob_study(), 1)
    assert "dark: 0 found. bright: 0 found." in told


def test_a_report_of_a_model_that_lacks_nothing_says_nothing_of_it(tmp_path: Path) -> None:
    for text in answered(tmp_path, CLASSIFIES, 1):
        assert "Missing" not in text


@pytest.mark.parametrize(
    ("optional", "words"),
    [
        (["t2"], "the model needs age, which is not read from images"),
        (["age"], "the model needs the images t1, t2 of an examination"),
        (["age", "t1", "t2"], "a series could be any of t1, t2"),
    ],
)
def test_a_model_that_needs_more_than_a_series_is_refused_with_the_name(
    optional: list[str], words: str
) -> None:
    data = {**CLASSIFIES["data"], **BOTH, "optional": optional}
    with pytest.raises(InputError, match=words):
        require_servable(parse_study({**CLASSIFIES, "data": data}))
