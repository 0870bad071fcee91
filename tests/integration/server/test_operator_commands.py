"""The operator's commands, through the front door, against a server in this process."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.common.study.loading import load_study
from wardround.server.checkpoints.history import Measurement, RefusalRecord, RoundRecord, SiteRecord
from wardround.server.checkpoints.history import append_record as append
from wardround.server.identity.operator_access import OperatorGate
from wardround.server.operators.grpc_server import operators_served
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import StudyQueue, stop_run
from wardround.server.scheduling.store import changing, note_seen
from wardround.server.service.installation import init_server


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("s") / "server"
    init_server(place, "Demo", ["localhost"], "127.0.0.1", 8443)
    return place


@pytest.fixture
def server(folder) -> Iterator[Path]:
    with operators_served(folder):
        yield folder


@pytest.fixture
def study(wardround, tmp_path) -> Path:
    path = tmp_path / "study.toml"
    assert wardround("study", "new", path).code == 0
    return path


def _with_a_round(folder: Path, run: str) -> None:
    place = RunFolder(folder, run)
    place.checkpoints.mkdir()
    site = SiteRecord("north", 10, 5, 1.0, 100, 100, 0.7)
    refusal = RefusalRecord("south", "its [bold]policy[/] allows nothing now")
    record = RoundRecord(1, 0, 2.0, (site,), (refusal,), (Measurement("north", "test", ()),))
    append(place.checkpoints / "history.jsonl", record)
    place.put_status(RunStatus(run, "my-study", "d", "running", 1, 10, "auroc", 0.75, ("north",)))


def test_a_study_is_submitted_shown_stopped_and_resumed(wardround, server, study) -> None:
    done = json.loads(wardround("study", "submit", study, "--server", server, "--json").out)
    assert done["run"] == "my-study-1"
    assert done["digest"] == load_study(study).digest
    StudyQueue(server).started(done["run"])
    _with_a_round(server, done["run"])
    listed = wardround("runs", "list", "--server", server)
    assert "my-study-1" in listed.out
    assert "auroc" in listed.out
    shown = wardround("runs", "show", "my-study-1", "--server", server)
    assert shown.code == 0
    assert "its [bold]policy[/] allows" in shown.out
    page = json.loads(wardround("runs", "show", "my-study-1", "--server", server, "--json").out)
    assert page["summary"]["state"] == "running"
    assert (page["history"][0]["round"], page["refusals"][0]["site"]) == (1, "south")
    assert wardround("runs", "stop", "my-study-1", "--server", server).out == (
        "my-study-1 is stopping.\n"
    )
    StudyQueue(server).stopped("my-study-1")
    said = wardround("runs", "resume", "my-study-1", "--server", server, "--json")
    assert json.loads(said.out)["state"] == "queued"


def test_the_page_of_a_run_is_written_from_what_the_server_has(
    wardround, server, study, tmp_path
) -> None:
    run = json.loads(wardround("study", "submit", study, "--server", server, "--json").out)["run"]
    StudyQueue(server).started(run)
    _with_a_round(server, run)
    out = tmp_path / "page.html"
    said = wardround("runs", "report", run, "--server", server, "--out", out)
    assert (said.code, said.out) == (0, f"{out}\n")
    page = out.read_text()
    assert "its [bold]policy[/] allows nothing now" in page
    assert "0.1 kB" in page
    assert wardround("runs", "report", run, "--server", server, "--out", server).code == 2


def test_a_run_is_stopped_and_resumed_only_where_that_makes_sense(wardround, server, study) -> None:
    run = json.loads(wardround("study", "submit", study, "--server", server, "--json").out)["run"]
    queue = StudyQueue(server)
    queue.started(run)
    again = wardround("runs", "resume", run, "--server", server)
    assert (again.code, again.out) == (2, "")
    assert f"run {run} is running already" in again.err
    queue.finished(run)
    for words in ("stop", "resume"):
        said = wardround("runs", words, run, "--server", server)
        assert (said.code, said.out) == (2, "")
        assert "finished" in said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize(("end", "code"), [("finished", 0), ("stopped", 3)])
def test_a_watch_tells_each_event_and_how_it_ended(
    wardround, server, study, end: str, code: int
) -> None:
    run = json.loads(wardround("study", "submit", study, "--server", server, "--json").out)["run"]
    queue = StudyQueue(server)
    queue.started(run)
    _with_a_round(server, run)

    def conclude() -> None:
        time.sleep(0.7)
        if end == "stopped":
            stop_run(server, run)
        getattr(queue, end)(run)

    thread = threading.Thread(target=conclude)
    thread.start()
    said = wardround("runs", "watch", run, "--server", server)
    thread.join()
    assert said.code == code
    lines = said.out.splitlines()
    assert lines[0] == "round 1: south did not take part: its [bold]policy[/] allows nothing now"
    assert lines[1] == "round 1/10 in 2.0 s, 1 site"
    assert lines[-1].startswith(end)
    events = wardround("runs", "watch", run, "--server", server, "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in events] == ["refusal", "round", "end"]


def test_sites_are_listed_with_their_certificates_and_when_they_were_seen(
    wardround, server
) -> None:
    assert "No site has joined" in wardround("sites", "list", "--server", server).out
    with changing(server) as connection:
        for site, revoked in (("north", None), ("south", 7.0)):
            connection.execute("INSERT INTO members VALUES (?, ?, 5.0)", (site, site))
            connection.execute(
                "INSERT INTO certificates VALUES (?, ?, '', NULL, 5.0, 4102444800.0, ?)",
                (site, site, revoked),
            )
    note_seen(server, ["north"])
    sites = json.loads(wardround("sites", "list", "--server", server, "--json").out)
    assert [(site["site"], site["revoked"], site["connected"]) for site in sites] == [
        ("north", False, False),
        ("south", True, False),
    ]
    assert time.time() - sites[0]["seen"] < 60
    assert sites[1]["seen"] is None
    table = wardround("sites", "list", "--server", server).out
    assert "2100-01-01" in table
    assert "revoked" in table
    assert "never" in table


def test_the_server_says_how_it_stands(wardround, server) -> None:
    said = wardround("server", "status", server)
    assert "Demo: wardround" in said.out
    assert "runs: none" in said.out
    assert json.loads(wardround("server", "status", server, "--json").out)["sites"] == 0


def test_without_a_server_every_command_says_how_to_start_it(wardround, folder, study) -> None:
    for words in (
        ("study", "submit", study, "--server", folder),
        ("runs", "list", "--server", folder),
        ("runs", "watch", "x", "--server", folder),
        ("sites", "list", "--server", folder),
        ("server", "status", folder),
    ):
        said = wardround(*words)
        assert (said.code, said.out) == (3, "")
        assert f"wardround server start {folder}" in said.err


def test_what_cannot_be_used_ends_with_code_2_and_a_sentence(
    wardround, server, study, tmp_path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        ("runs", "show", "x", "--server", server): "there is no run 'x'",
        ("runs", "watch", "x", "--server", server): "there is no run 'x'",
        ("runs", "stop", "x", "--server", server): "there is no run 'x'",
        ("runs", "resume", "x", "--server", server): "there is no run 'x'",
        ("runs", "report", "x", "--server", server): "there is no run 'x'",
        ("runs", "show", "../x", "--server", server): "there is no run '../x'",
        ("runs", "list", "--server", empty): "neither a server folder nor HOST:PORT",
        ("runs", "list", "--server", "localhost:1"): "--identity",
        ("runs", "list", "--server", "localhost:1", "--identity", empty): "private key",
        ("server", "status", empty): "server.toml",
        ("server", "start", empty): "server.toml",
        ("study", "submit", study, "--server", server, "--site", "nort"): "unknown site 'nort'",
        ("study", "submit", empty / "no.toml", "--server", server): "no.toml",
        ("server", "operator", "ann", "--server", server, "--revoke"): "no operator 'ann'",
    }
    for words, sentence in cases.items():
        said = wardround(*words)
        assert said.code == 2, (words, said)
        assert sentence in said.err, (words, said)
        assert "Traceback" not in said.err


def test_an_operator_is_given_a_certificate_that_can_be_taken_away(
    wardround, folder, tmp_path
) -> None:
    out = tmp_path / "ann"
    said = wardround("server", "operator", "ann", "--server", folder, "--out", out)
    assert said.code == 0
    assert sorted(path.name for path in out.iterdir()) == ["ca.crt", "operator.crt", "operator.key"]
    assert (out / "operator.key").stat().st_mode & 0o777 == 0o600
    gate, pem = OperatorGate(folder), (out / "operator.crt").read_bytes()
    assert gate.name_of(pem) == "ann"
    assert gate.name_of(b"no certificate") is None
    again = wardround("server", "operator", "ann", "--server", folder, "--out", out)
    assert again.code == 2
    assert wardround("server", "operator", "ann", "--server", folder, "--revoke").code == 0
    assert gate.name_of(pem) is None


def test_the_server_folder_is_taken_from_the_environment(wardround, server, monkeypatch) -> None:
    monkeypatch.setenv("WARDROUND_SERVER", str(server))
    assert wardround("runs", "list").out == "No study was submitted yet.\n"
