"""A gateway beside a real archive: every study answered once, whatever ends the process."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.pacs.gateway import (
    add_rules,
    command,
    end,
    results,
    serving,
    status,
    wait_until,
)
from tests.pacs.orthanc import TITLE, Orthanc
from tests.pacs.site import site_folder
from tests.support.clinic.dicom_series import make_series, write_series
from tests.support.clinic.model_folders import CLASSIFIES, SEGMENTS, untrained_model
from tests.support.hospitals.blobs import blob_study

from wardround.client.clinic.inference.prediction import Detected
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.pacs.archive import open_archive
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.boxes.report import read_report
from wardround.client.data.reading.readers import read_image

pytestmark = pytest.mark.pacs
# Where the process is killed: at the call of a function, before it or when it has returned.
_ANSWER, _QUEUE = "client.clinic.gateway.answer", "client.clinic.gateway.queue"
_KILLS = (
    (f"{_QUEUE}:WorkQueue.settled", 1, False),
    (f"{_QUEUE}:WorkQueue.settled", 2, True),
    (f"{_QUEUE}:WorkQueue.add", 1, False),
    (f"{_QUEUE}:WorkQueue.add", 1, True),
    (f"{_QUEUE}:WorkQueue.add", 1, True),
    (f"{_QUEUE}:WorkQueue.begin", 1, False),
    (f"{_QUEUE}:WorkQueue.begin", 1, True),
    (f"{_ANSWER}:missing_results", 1, False),
    (f"{_ANSWER}:missing_results", 1, True),
    (f"{_ANSWER}:fetch_images", 1, False),
    (f"{_ANSWER}:fetch_images", 1, True),
    (f"{_ANSWER}:predict_series", 1, False),
    (f"{_ANSWER}:predict_series", 1, True),
    (f"{_ANSWER}:make_objects", 1, True),
    (f"{_ANSWER}:store_object", 1, False),
    (f"{_ANSWER}:store_object", 1, True),
    (f"{_ANSWER}:store_object", 2, False),
    (f"{_ANSWER}:store_object", 1, True),
    (f"{_ANSWER}:keep_fhir", 1, False),
    (f"{_ANSWER}:keep_fhir", 1, True),
    (f"{_QUEUE}:WorkQueue.end", 1, False),
    (f"{_QUEUE}:WorkQueue.end", 1, True),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("models") / "blocks", SEGMENTS)


def _sent(orthanc: Orthanc, folder: Path, numbers: range) -> set[str]:
    for number in numbers:
        orthanc.add_files(write_series(folder / str(number), make_series(number)))
    return {f"1.2.3.{number}" for number in numbers}


def test_every_study_is_answered_once_though_the_process_is_killed_at_twenty_points(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "sites").mkdir()
    site, faults = site_folder(tmp_path / "sites" / "north", orthanc), tmp_path / "faults"
    faults.mkdir()
    add_rules(site)
    studies = _sent(orthanc, tmp_path / "sent", range(1, 7))
    killed = 0
    for number, (point, call, after) in enumerate(_KILLS):
        plan = {"point": point, "call": call, "who": "north", "do": "die", "after": after}
        (faults / f"{number:02d}.json").write_text(json.dumps(plan))
        if number == 10:  # more arrive in the midst of it
            studies |= _sent(orthanc, tmp_path / "sent", range(7, 10))
        with serving(site, model, faults) as child:
            assert child.wait(120) == -signal.SIGKILL, (point, call, after)
        assert (faults / f"{number:02d}.reached").exists()
        killed += 1
    assert killed >= 20
    archive = open_archive(site)
    with serving(site, model) as child:
        wait_until(lambda: status(site)["states"]["done"] == len(studies), "all answered")  # type: ignore[index]
        assert end(child) == 0
    assert results(archive) == {study: ["SEG", "SR"] for study in studies}
    said = status(site)
    assert said["serving"] is False
    assert said["states"] == {"waiting": 0, "done": len(studies), "refused": 0, "given up": 0}
    kept = [sorted(path.name for path in one.iterdir()) for one in _fhir(site)]
    assert kept == [["device.json", "diagnostic-report.json", "imaging-study.json"]] * len(studies)
    # Another process, another queue: what the archive holds is not answered again.
    before = orthanc.get("statistics")
    for path in (site / "state" / "gateway").glob("queue.sqlite*"):
        path.unlink()
    _once(site, model)
    assert orthanc.get("statistics") == before
    assert status(site)["states"]["done"] == len(studies)  # type: ignore[index]


def test_boxes_come_back_from_the_archive_where_they_were_found(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site)
    sure = {"head.classes.bias": 6.0}  # every anchor holds something
    content = blob_study(3, data={"size": [16, 16, 16], "intensity": "mr"})
    model = untrained_model(tmp_path / "boxes", content, added=sure)
    _sent(orthanc, tmp_path / "sent", range(1, 2))

    _once(site, model)

    archive = open_archive(site)
    assert results(archive) == {"1.2.3.1": ["SR"]}
    (series,) = [one for one in archive.find_series("1.2.3.1") if one.modality == "SR"]
    (path,) = archive.fetch_series("1.2.3.1", series.uid, tmp_path / "fetched")
    image = read_image(Location(tmp_path / "sent" / "1"), 3)
    told = load_predictor(model, "cpu").predict([image], modality="MR")
    assert isinstance(told, Detected)
    sure_boxes = [[*box.low, *box.high] for box in told.boxes if box.score >= told.threshold]
    assert len(sure_boxes) > 3
    found = read_report(pydicom.dcmread(path), image, None)
    np.testing.assert_allclose(found.corners, sure_boxes, atol=1e-2)


def test_an_archive_that_is_away_is_waited_for(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site)
    away = float(os.environ.get("WARDROUND_PACS_AWAY_SECONDS", "4"))
    studies = _sent(orthanc, tmp_path / "sent", range(1, 9))
    with serving(site, model) as child:
        wait_until(lambda: _done(site) >= 2, "two answered")
        orthanc.stop()
        wait_until(lambda: "refuses" in str(status(site).get("trouble")), "trouble said", 30)
        time.sleep(away)
        assert child.poll() is None
        orthanc.start()
        wait_until(lambda: _done(site) == len(studies), "all answered")
        assert status(site)["trouble"] == ""
        assert end(child) == 0
    assert results(open_archive(site)) == {study: ["SEG", "SR"] for study in studies}
    assert status(site)["states"]["given up"] == 0  # type: ignore[index]


def test_a_series_that_the_model_was_not_made_for_is_refused_and_the_others_are_answered(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site)
    flat = make_series(1)
    for one, place in zip(flat, (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 30.0, 32.0), strict=True):
        one.ImagePositionPatient = [-10.0, -12.0, place]  # a gap
    orthanc.add_files(write_series(tmp_path / "flat", flat))
    studies = _sent(orthanc, tmp_path / "sent", range(2, 4))
    _once(site, model)
    said = status(site)
    assert said["states"] == {"waiting": 0, "done": 2, "refused": 1, "given up": 0}
    assert "gaps between slices" in json.dumps(said["reasons"])
    found = results(open_archive(site))
    assert found == {"1.2.3.1": [], **{study: ["SEG", "SR"] for study in studies}}


def test_a_study_that_always_fails_is_given_up_with_the_reason_in_sight(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site, more="\n[limits]\nseries_objects = 9\n")
    orthanc.add_files(write_series(tmp_path / "long", make_series(1, slices=12)))
    studies = _sent(orthanc, tmp_path / "sent", range(2, 4))
    _once(site, model)
    said = status(site)
    assert said["states"] == {"waiting": 0, "done": 2, "refused": 0, "given up": 1}
    (reason,) = said["reasons"]  # type: ignore[misc]
    assert reason["state"] == "given up"  # type: ignore[index]
    assert "series_objects = 9" in str(reason)
    assert results(open_archive(site)).keys() >= studies
    text = (site / "pacs.toml").read_text().replace("series_objects = 9", "series_objects = 90")
    (site / "pacs.toml").write_text(text)
    again = subprocess.run(command(site, "--again"), capture_output=True, text=True, check=True)
    assert "1 studies" in again.stdout
    _once(site, model)
    assert status(site)["states"]["done"] == 3  # type: ignore[index]


def test_images_that_are_sent_are_answered_and_others_are_not_taken(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    (own_port,) = orthanc.peers.values()
    site = site_folder(tmp_path / "site", orthanc, "get")
    add_rules(site, settle=1)
    text = (site / "pacs.toml").read_text().replace("poll_seconds = 0.3", "poll_seconds = 0")
    (site / "pacs.toml").write_text(text + "receive = true\n")
    series = make_series(1)
    with serving(site, model) as child:
        wait_until(lambda: _answers(own_port, TITLE), "the receiver")
        assert not _answers(own_port, "STRANGER")
        from pynetdicom import AE

        entity = AE(ae_title=TITLE)
        entity.add_requested_context(series[0].SOPClassUID, "1.2.840.10008.1.2.1")
        link = entity.associate("127.0.0.1", own_port, ae_title="WARDROUND")
        for one in series:
            assert link.send_c_store(one).Status == 0
        broken = make_series(2)[0]
        broken.StudyInstanceUID = "../../etc"
        assert link.send_c_store(broken).Status != 0
        link.release()
        wait_until(lambda: _done(site) == 1, "the answer")
        assert end(child) == 0
    assert results(open_archive(site)) == {"1.2.3.1": ["SEG", "SR"]}
    assert not any((site / "state" / "gateway" / "incoming").iterdir())


def test_a_classifier_answers_with_a_report_alone(orthanc: Orthanc, tmp_path: Path) -> None:
    model = untrained_model(tmp_path / "bright", CLASSIFIES)
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site)
    orthanc.add_files(write_series(tmp_path / "one", make_series(1, slices=1)))
    _once(site, model)
    archive = open_archive(site)
    assert results(archive) == {"1.2.3.1": ["SR"]}
    (report,) = [one for one in archive.find_series("1.2.3.1") if one.modality == "SR"]
    (path,) = archive.fetch_series("1.2.3.1", report.uid, tmp_path / "report")
    text = str(pydicom.dcmread(path))
    assert "Probability of class" in text
    assert "Not for diagnosis" in text


def test_nothing_of_a_patient_is_said_or_logged(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site)
    _sent(orthanc, tmp_path / "sent", range(1, 3))
    flat = make_series(3, PatientAge="CANARYAGE", StudyDescription="CANARYSTUDY")
    for one in flat[4:]:
        one.ImagePositionPatient = [0.0, 0.0, 0.0]
    orthanc.add_files(write_series(tmp_path / "flat", flat))
    said = _once(site, model)
    told = said + json.dumps(status(site))
    assert "CANARY" not in told
    assert "1.2.3." not in told
    assert str(tmp_path / "sent") not in told


def test_a_second_gateway_on_a_site_is_refused(
    orthanc: Orthanc, model: Path, tmp_path: Path
) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    add_rules(site)
    with serving(site, model) as child:
        wait_until(lambda: (site / "state/gateway/queue.sqlite").exists(), "the first one")
        second = subprocess.run(
            command(site, "--model", model), capture_output=True, text=True, check=False
        )
        assert second.returncode == 3
        assert "another 'wardround site serve' works on" in second.stderr
        assert status(site)["serving"] is True
        assert end(child) == 0


def _fhir(site: Path) -> list[Path]:
    return list((site / "state" / "gateway" / "results").iterdir())


def _done(site: Path) -> int:
    if not (site / "state" / "gateway" / "queue.sqlite").exists():
        return 0
    states: Callable[[], object] = lambda: status(site)["states"]  # noqa: E731
    return int(states()["done"])  # type: ignore[index]


def _once(site: Path, model: Path) -> str:
    """Have a gateway answer what is there; return what it said."""
    done = subprocess.run(
        command(site, "--model", model, "--once"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _answers(port: int, title: str) -> bool:
    from pynetdicom import AE

    entity = AE(ae_title=title)
    entity.add_requested_context("1.2.840.10008.1.1")
    link = entity.associate("127.0.0.1", port, ae_title="WARDROUND")
    if link.is_established:
        link.release()
        return True
    return False
