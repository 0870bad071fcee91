"""An archive that is wrong or hostile: what it sends is bounded, checked, and never repeated."""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest
from tests.support.clinic.dicom_series import make_series

from wardround.client.clinic.pacs import dicomweb
from wardround.client.clinic.pacs.archive import PacsAwayError, PacsError, StudyQuery, open_archive
from wardround.client.clinic.pacs.series_folder import SeriesFolder, require_room
from wardround.client.clinic.pacs.settings import LimitsTable

pytest.importorskip("dicomweb_client")
_Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def _archive(reply: _Reply, site: Path) -> Iterator[dicomweb.WebArchive]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    (site / "pacs.toml").write_text(
        f'[dicomweb]\nurl = "http://127.0.0.1:{server.server_port}/dicom-web"\n'
        "timeout_seconds = 2\n[limits]\nobject_megabytes = 1\nseries_megabytes = 2\nfound = 600\n"
    )
    try:
        archive = open_archive(site)
        assert isinstance(archive, dicomweb.WebArchive)
        yield archive
    finally:
        server.shutdown()
        server.server_close()


def _send(content: bytes, status: int = 200, kind: str = "application/dicom+json") -> _Reply:
    def reply(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(content)))
        to.end_headers()
        to.wfile.write(content)

    return reply


def _study(uid: object) -> dict[str, object]:
    return {"0020000D": {"vr": "UI", "Value": [uid]}}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (_send(b"<html>CANARY</html>"), "what is no DICOMweb"),
        (_send(b"[[[[" * 10_000), "what is no DICOMweb"),
        (_send(json.dumps([_study("../../CANARY")]).encode()), "no DICOM identifier"),
        (_send(json.dumps([_study("1" * 65)]).encode()), "no DICOM identifier"),
        (_send(json.dumps([_study(None)]).encode()), "no DICOM identifier"),
        (_send(json.dumps([{"00080018": "CANARY"}]).encode()), "no DICOM"),
        (_send(b"CANARY", 401), r"does not know this user.*HTTP 401"),
        (_send(b"CANARY", 403), "does not allow"),
        (_send(b"CANARY", 404), "knows no such address"),
        (_send(b"CANARY", 418), r"refuses what was asked \(HTTP 418\)"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said_in_our_own_words(
    reply: _Reply,
    words: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    for talkative in ("pydicom", "dicomweb_client", "retrying", "urllib3"):
        logging.getLogger(talkative).setLevel(logging.NOTSET)  # as in a process that has just begun
    with _archive(reply, tmp_path) as archive, pytest.raises(PacsError, match=words) as refused:
        archive.find_studies(StudyQuery())
    assert not isinstance(refused.value, PacsAwayError)
    warned = " ".join(str(one.message) for one in recwarn)
    assert "CANARY" not in str(refused.value) + caplog.text + warned


def test_one_bad_entry_does_not_hide_the_others(tmp_path: Path) -> None:
    listed = [_study("1.2.3"), _study("../../etc"), _study("1.2.4")]
    with _archive(_send(json.dumps(listed).encode()), tmp_path) as archive:
        found = archive.find_studies(StudyQuery())
    assert [one.uid for one in found] == ["1.2.3", "1.2.4"]


def test_a_busy_archive_is_asked_three_times_and_then_said_to_be_away(tmp_path: Path) -> None:
    asked: list[int] = []

    def reply(to: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        _send(b"", 503)(to)

    with _archive(reply, tmp_path) as archive, pytest.raises(PacsAwayError, match="is busy"):
        archive.find_studies(StudyQuery())
    assert len(asked) == 3


def test_an_archive_cannot_send_us_elsewhere(tmp_path: Path) -> None:
    asked: list[str] = []

    def reply(to: BaseHTTPRequestHandler) -> None:
        asked.append(to.path)
        to.send_response(302)
        to.send_header("Location", "/secret")
        to.end_headers()

    with _archive(reply, tmp_path) as archive, pytest.raises(PacsError, match="another address"):
        archive.ping()
    assert not any("secret" in path for path in asked)


def test_an_endless_answer_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "_LARGEST_ANSWER", 2**21)

    def reply(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.send_header("Content-Type", "application/dicom+json")
        to.end_headers()
        while True:
            to.wfile.write(b"[" + b" " * 2**16)

    with _archive(reply, tmp_path) as archive, pytest.raises(PacsError, match="more than was"):
        archive.find_studies(StudyQuery())


def test_an_archive_that_knows_no_pages_or_finds_no_end_is_bounded(tmp_path: Path) -> None:
    asked: list[int] = []

    def same(to: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        _send(json.dumps([_study(f"1.2.{n}") for n in range(500)]).encode())(to)

    with _archive(same, tmp_path) as archive:
        assert len(archive.find_studies(StudyQuery())) == 500
    assert len(asked) == 2

    def endless(to: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        found = [_study(f"1.{len(asked)}.{n}") for n in range(500)]
        _send(json.dumps(found).encode())(to)

    with _archive(endless, tmp_path) as archive, pytest.raises(PacsError, match=r"limits\.found"):
        archive.find_studies(StudyQuery())


@pytest.mark.parametrize(
    ("size", "words"), [(3 * 2**20, "more than was agreed"), (1000, "1 of 2 objects")]
)
def test_a_series_is_bounded_and_counted(size: int, words: str, tmp_path: Path) -> None:
    one = make_series(1, slices=1)[0]
    path = tmp_path / "one.dcm"
    pydicom.dcmwrite(path, one, enforce_file_format=True)
    part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\0" * 0
    body = part + b"\r\n--x\r\nContent-Type: application/dicom\r\n\r\n"
    body += (b"A" * size if size > 2**20 else path.read_bytes()) + b"\r\n--x--\r\n"

    def reply(to: BaseHTTPRequestHandler) -> None:
        if "instances" in to.path:
            uids = [one.SOPInstanceUID, "1.2.3.99"]
            listed = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]
            _send(json.dumps(listed).encode())(to)
        else:
            _send(body, kind='multipart/related; type="application/dicom"; boundary=x')(to)

    with _archive(reply, tmp_path) as archive, pytest.raises(PacsError, match=words):
        archive.fetch_series("1.2.3.1", "1.2.3.1.1", tmp_path / "fetched")


def test_an_object_of_another_series_is_not_taken(tmp_path: Path) -> None:
    folder = SeriesFolder(tmp_path / "series", "1.2.3.1.1", LimitsTable(free_gigabytes=0))
    folder.add(make_series(1)[0])
    folder.add(make_series(1)[0])  # again: left out
    with pytest.raises(PacsError, match="of another series"):
        folder.add(make_series(2)[0])
    assert [path.name for path in folder.paths] == ["00001.dcm"]
    with pytest.raises(PacsError, match="is not empty"):
        SeriesFolder(tmp_path / "series", "1.2.3.1.1", LimitsTable(free_gigabytes=0))


def test_nothing_is_received_where_the_disk_is_nearly_full(tmp_path: Path) -> None:
    with pytest.raises(PacsAwayError, match=re.escape("limits.free_gigabytes = 1e+09")):
        require_room(tmp_path, LimitsTable(free_gigabytes=1e9))
