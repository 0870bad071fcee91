"""A gateway's studies are counted, and a fault of the monitoring stops no answer."""

from pathlib import Path

import pytest
from tests.support.clinic.dicom_series import make_series, write_series
from tests.support.clinic.drawn_cases import drawn_cases, reference_of
from tests.support.clinic.model_folders import CLASSIFIES, untrained_model

from wardround.client.clinic.inference.predictor import Predictor, load_predictor
from wardround.client.clinic.monitoring.serving import watch_gateway
from wardround.client.clinic.monitoring.store import begin_monitor, open_monitor
from wardround.client.clinic.pacs.source import read_source
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    return load_predictor(untrained_model(tmp_path / "model", CLASSIFIES), "cpu")


def begin(site: Path, digest: str) -> None:
    reference = reference_of(digest, "2026-09-01")
    begin_monitor(open_site(site), reference, drawn_cases(30, 0), b"0" * 32)


def test_a_study_that_is_answered_is_counted_once_with_its_scanner(
    tmp_path: Path, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path, predictor.digest)
    (made,) = make_series(1, slices=1)
    made.Manufacturer, made.ManufacturerModelName = "Acme", "MR 3"
    (file,) = write_series(tmp_path / "series", [made])
    image = read_image(Location(file), 2)
    said = predictor.predict_prepared([predictor.prepare(image)])[0]
    watch = watch_gateway(tmp_path, predictor)
    for _ in range(2):
        watch(("1.2.3", "digest"), read_source([file]), [image], said)
    monitor = open_monitor(open_site(tmp_path))
    (held,) = monitor.cases().values()
    (case,) = held
    assert case.scanner.startswith("Acme MR 3")
    assert case.key == monitor.key_of("series:1.2.3")
    assert set(case.outputs) == {"normal", "abnormal"}
    (monitor.folder / "cases.jsonl").write_text("broken\n")
    watch(("1.2.4", "digest"), read_source([file]), [image], said)
    assert "the monitoring did not count a study" in caplog.text


def test_a_gateway_whose_model_has_no_reference_does_not_begin(
    tmp_path: Path, predictor: Predictor
) -> None:
    with pytest.raises(InputError, match="has no reference"):
        watch_gateway(tmp_path, predictor)
    begin(tmp_path, "ab" * 32)
    with pytest.raises(InputError, match="numbers of two models cannot be compared"):
        watch_gateway(tmp_path, predictor)
