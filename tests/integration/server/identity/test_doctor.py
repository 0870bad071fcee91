"""The doctor finds each fault, made for real, says what to do, and names no patient."""

import http.server
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import wardround
from wardround.client.doctor.check import Check
from wardround.client.doctor.connection import clock_skew_seconds
from wardround.client.doctor.doctor import examine
from wardround.client.site.enrolment import join, renew
from wardround.common.security.enrolment import ServerStatus
from wardround.server.identity.membership import revoke

CANARY = "CANARYPATIENT"


@pytest.fixture
def site(consortium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that has joined and lacks nothing."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    (folder / "images").mkdir()
    rows = ["patient,image,label"]
    for number in range(3):
        Image.new("L", (4, 4), number).save(folder / "images" / f"{CANARY}{number}.png")
        rows.append(f"{CANARY}{number},images/{CANARY}{number}.png,normal")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    change(folder / "site.toml", 'name = "north"', 'name = "north"\ndevice = "cpu"')
    return folder


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def found(folder: Path) -> dict[str, Check]:
    checks = examine(folder)
    assert CANARY not in json.dumps([[check.fact, check.remedy] for check in checks])
    for check in checks:
        assert (check.status == "ok") == (check.remedy == ""), check
    return {check.name: check for check in checks}


def faults(folder: Path, status: str = "fail") -> dict[str, str]:
    return {name: c.fact for name, c in found(folder).items() if c.status == status}


def test_a_whole_site_has_no_fault(site: Path) -> None:
    checks = found(site)
    assert faults(site) == {}
    assert faults(site, "warn") == {}
    assert checks["manifest"].fact == "3 examinations of 3 patients"
    assert checks["accepted"].fact.endswith("north")
    assert list(checks) == [
        "site.toml",
        "account",
        "versions",
        "disk",
        "processor",
        "data folder",
        "manifest",
        "images",
        "studies",
        "parts",
        "policy",
        "packages",
        "ledger",
        "audit log",
        "certificate",
        "one ledger",
        "proxy",
        "name",
        "port",
        "TLS",
        "accepted",
        "clock",
        "server's versions",
    ]


def test_the_doctor_changes_nothing_but_the_list_of_opened_files(site: Path) -> None:
    (site / "state").mkdir(exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*")}
    examine(site, quick=True)
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*")} == before
    examine(site)
    opened = site / "state" / "opened"
    new = {path for path in site.rglob("*") if path.stat().st_mtime_ns != before.get(path)}
    assert new == {site / "state", opened, opened / "files.jsonl"}


def test_no_site_folder(tmp_path: Path) -> None:
    assert list(faults(tmp_path)) == ["site.toml"]


def test_a_site_that_has_not_joined(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    failed = found(tmp_path)
    assert failed["server"].status == "fail"
    assert "wardround site join" in failed["server"].remedy
    assert failed["certificate"].status == "fail"


def test_a_closed_port(site: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    toml = site / "site.toml"
    address = toml.read_text().rpartition("address = ")[2].strip()
    change(toml, address, f'"127.0.0.1:{closed}"')
    failed = found(site)
    assert failed["port"].fact == f"127.0.0.1:{closed} refuses connections"
    assert "server's operator" in failed["port"].remedy
    assert {failed[name].fact for name in ("TLS", "accepted", "clock")} == {"not known"}


def test_a_port_that_swallows_everything(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a firewall does that drops packets: a full backlog answers nobody."""
    monkeypatch.setattr("wardround.client.doctor.connection._TIMEOUT_SECONDS", 0.5)
    toml = site / "site.toml"
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        address = toml.read_text().rpartition("address = ")[2].strip()
        change(toml, address, f'"127.0.0.1:{place[1]}"')
        failed = found(site)
        for one in waiting:
            one.close()
    assert failed["port"].fact.endswith("does not answer")
    assert "firewall" in failed["port"].remedy


def test_a_name_that_does_not_exist(site: Path, consortium: Any) -> None:
    change(site / "site.toml", "127.0.0.1", "no-such-host.invalid")
    failed = found(site)
    assert failed["name"].fact == "no-such-host.invalid has no address"
    assert "DNS" in failed["name"].remedy


def test_a_server_of_another_ca(
    site: Path, tmp_path: Path, start_server: Callable[..., Any], consortium: Any
) -> None:
    other = start_server(tmp_path / "other")
    change(site / "site.toml", f":{consortium.port}", f":{other.port}")
    failed = found(site)
    assert failed["TLS"].status == "fail"
    assert "not of the consortium's CA" in failed["TLS"].remedy
    assert other.heard == []


def test_a_server_of_another_name(
    tmp_path: Path, site: Path, consortium: Any, start_server: Callable[..., Any]
) -> None:
    change(site / "site.toml", "127.0.0.1", "localhost")
    failed = found(site)
    assert "for another name" in failed["TLS"].remedy


def test_something_that_is_no_tls(site: Path, consortium: Any, tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as plain:
        thread = threading.Thread(target=plain.serve_forever, daemon=True)
        thread.start()
        change(site / "site.toml", f":{consortium.port}", f":{plain.server_port}")
        failed = found(site)
        plain.shutdown()
        thread.join()
    assert failed["TLS"].status == "fail"


def test_a_revoked_site(site: Path, consortium: Any) -> None:
    revoke(consortium.folder, "north")
    failed = faults(site)
    assert list(failed) == ["accepted"]
    assert "does not accept this site's certificate" in failed["accepted"]


def test_an_expired_certificate(site: Path, consortium: Any) -> None:
    toml = consortium.folder / "server.toml"
    change(toml, "site_certificate_days = 90.0", "site_certificate_days = 1e-12")
    renew(site)
    time.sleep(1.1)
    failed = found(site)
    assert "expired on" in failed["certificate"].fact
    assert "--again" in failed["certificate"].remedy
    assert "expired on" in failed["TLS"].fact


def test_a_certificate_near_its_end(site: Path, consortium: Any) -> None:
    toml = consortium.folder / "server.toml"
    change(toml, "site_certificate_days = 90.0", f"site_certificate_days = {1 / 72}")
    renew(site)
    assert list(faults(site, "warn")) == ["certificate"]


def test_a_server_certificate_near_its_end(
    tmp_path: Path, site: Path, consortium: Any, start_server: Callable[..., Any]
) -> None:
    from wardround.server.identity.server_certificate import renew_server_certificate

    toml = consortium.folder / "server.toml"
    change(toml, "server_certificate_days = 365.0", "server_certificate_days = 10.0")
    renew_server_certificate(consortium.folder)
    other = start_server(consortium.folder)
    change(site / "site.toml", f":{consortium.port}", f":{other.port}")
    assert list(faults(site, "warn")) == ["TLS"]


@pytest.mark.parametrize(
    ("seconds", "status"), [(600, "fail"), (-600, "fail"), (100, "warn"), (-100, "warn")]
)
def test_a_clock_that_is_off(
    site: Path, consortium: Any, start_server: Callable[..., Any], seconds: int, status: str
) -> None:
    other = start_server(consortium.folder, date_header=False)
    other.date = format_datetime(datetime.now(UTC) - timedelta(seconds=seconds), usegmt=True)
    change(site / "site.toml", f":{consortium.port}", f":{other.port}")
    clock = found(site)["clock"]
    assert clock.status == status
    assert ("ahead of" if seconds > 0 else "behind") in clock.fact
    assert "NTP" in clock.remedy


def test_a_clock_that_nobody_can_compare() -> None:
    assert clock_skew_seconds("", datetime.now(UTC)) is None
    assert clock_skew_seconds("yesterday", datetime.now(UTC)) is None


@pytest.mark.parametrize("part", ["wardround", "flwr"])
def test_a_server_of_another_version(
    site: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def status(**facts: str) -> ServerStatus:
        return ServerStatus(**{**facts, part: "9.9"})

    monkeypatch.setattr("wardround.server.identity.enrolment.ServerStatus", status)
    failed = found(site)["server's versions"]
    assert failed.status == "fail"
    assert "9.9" in failed.fact
    assert wardround.__version__ in failed.fact


def test_another_flower_here(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import version

    def other(name: str) -> str:
        return "1.43.0" if name == "flwr" else version(name)

    monkeypatch.setattr("wardround.client.doctor.folder.version", other)
    assert found(site)["versions"].remedy == "pip install 'flwr>=1.41,<1.43'."


@pytest.mark.parametrize("there", ["1.41.7", "1.42.0"])
def test_a_server_with_another_flower_that_was_tested_is_no_fault(
    site: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    def status(**facts: str) -> ServerStatus:
        return ServerStatus(**{**facts, "flwr": there})

    monkeypatch.setattr("wardround.server.identity.enrolment.ServerStatus", status)
    answered = found(site)["server's versions"]
    assert answered.status == "ok"
    assert there in answered.fact


@pytest.mark.parametrize(("free", "status"), [(5 * 10**8, "fail"), (5 * 10**9, "warn")])
def test_a_full_disk(site: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    from shutil import _ntuple_diskusage

    usage = _ntuple_diskusage(10**12, 10**12 - free, free)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert found(site)["disk"].status == status


def test_a_gpu_that_is_not_there(site: Path) -> None:
    change(site / "site.toml", 'device = "cpu"', 'device = "cuda:7"')
    assert found(site)["processor"].status == "fail"


def test_a_data_folder_that_is_not_there(site: Path) -> None:
    change(site / "site.toml", 'device = "cpu"', 'device = "cpu"\ndata_root = "/no/such/place"')
    failed = faults(site)
    assert failed["data folder"] == "the data folder is not there"
    assert failed["manifest"].endswith("3 of the files they name are missing, in rows 2, 3, 4")


def test_a_missing_image_is_counted_and_not_named(site: Path) -> None:
    (site / "images" / f"{CANARY}1.png").unlink()
    assert faults(site)["manifest"].endswith("1 of the files they name are missing, in row 3")


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "there is no manifest"),
        (b"", "the manifest is empty"),
        (b"image,label\na.png,normal\n", "the manifest has no column patient"),
        (b"patient,image,label\n", "the manifest has no rows"),
        (
            b"patient,image\nM\xfcller,a.png\n",
            "the manifest cannot be read, for row 2 holds a letter that is not UTF-8",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used(site: Path, content: bytes | None, fact: str) -> None:
    path = site / "manifest.csv"
    path.unlink() if content is None else path.write_bytes(content)
    assert faults(site)["manifest"] == fact


def test_who_has_a_part_is_counted_and_who_was_moved_is_pointed_at(site: Path) -> None:
    assert found(site)["parts"].fact == "nobody has one yet: no study was opened"
    parts = site / "parts" / "patients.jsonl"
    parts.parent.mkdir()
    line = {"by": "manifest", "study": "0" * 64, "shares": [0.7, 0.15, 0.15]}
    lines = [{"key": "0" * 64}, {**line, "train": ["a" * 32, "b" * 32], "test": ["c" * 32]}]
    parts.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert found(site)["parts"].fact == "2 train, 0 validation, 1 test patients"
    with parts.open("a") as stream:
        stream.write(json.dumps({**line, "test": ["a" * 32]}) + "\n")
    check = found(site)["parts"]
    assert (check.status, check.fact) == (
        "warn",
        "1 train, 0 validation, 2 test patients; 1 were in another part before",
    )
    parts.write_text("lost")
    assert "is not as the site wrote it" in faults(site)["parts"]


def test_a_ledger_without_parts_is_pointed_at(site: Path) -> None:
    (site / "ledger").mkdir(exist_ok=True)
    (site / "ledger" / "ledger.jsonl").touch()
    check = found(site)["parts"]
    assert check.status == "warn"
    assert "who was trained on before is not known" in check.fact


def test_a_policy_that_cannot_be_read(site: Path) -> None:
    (site / "policy.toml").write_text("smallest_cohort = 'many'\n")
    assert "policy" in faults(site)
    (site / "policy.toml").unlink()
    assert "policy" in faults(site)


def test_an_open_policy_is_pointed_at(site: Path) -> None:
    (site / "policy.toml").write_text("simulated = true\n")
    assert "allows everything" in faults(site, "warn")["policy"]


def test_an_edited_ledger(site: Path) -> None:
    from wardround.client.privacy.ledger.file import LEDGER_FILE, LEDGER_FOLDER
    from wardround.client.privacy.ledger.ledger import PrivacyLedger

    PrivacyLedger.open(site, durable=False).close()
    assert found(site)["ledger"].fact.startswith("intact")
    path = site / LEDGER_FOLDER / LEDGER_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert "ledger" in faults(site)


def test_an_edited_audit_log(site: Path) -> None:
    from wardround.client.egress.way_out import open_audit_log
    from wardround.common.security.audit_log import LOG_FILE, Event

    open_audit_log(site).append(Event(kind="decision", study="abc"))
    assert found(site)["audit log"].fact == "intact, 1 entries"
    change(site / "audit" / LOG_FILE, '"study":"abc"', '"study":"abd"')
    assert "audit log" in faults(site)


def test_a_key_that_others_may_read(site: Path) -> None:
    (site / "keys" / "tls.key").chmod(0o644)
    assert "chmod 600" in found(site)["certificate"].remedy


def test_a_proxy_that_is_away_is_named_without_its_password(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{closed}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    failed = found(site)
    assert failed["port"].fact == f"the proxy 127.0.0.1:{closed} refuses connections"
    assert "secret" not in str(failed)


def test_a_proxy_that_does_not_know_the_way(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Refusing) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.delenv("no_proxy", raising=False)
        failed = found(site)
        proxy.shutdown()
        thread.join()
    assert failed["proxy"].status == "ok"
    assert "the proxy does not allow connections" in failed["TLS"].remedy


def test_a_proxy_is_left_out_for_a_server_that_needs_none(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert faults(site) == {}


def test_the_command_prints_a_table_or_json_and_ends_with_1_for_a_fault(
    site: Path, wardround: Callable[..., Any]
) -> None:
    good = wardround("site", "doctor", site)
    assert good.code == 0
    assert "server's versions" in good.out
    (site / "manifest.csv").unlink()
    bad = wardround("site", "doctor", site, "--json")
    assert bad.code == 1
    (failed,) = [check for check in json.loads(bad.out) if check["status"] == "fail"]
    assert failed["name"] == "manifest"
