"""The daemon's local socket and its board: the folder's owner asks, and gets words and numbers."""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.client.daemon.control_socket import SOCKET_FILE, ControlSocket, ask_daemon
from wardround.client.daemon.status import DaemonStatus, StatusBoard, fresh_status, work_of
from wardround.common.errors import RunError


@pytest.fixture
def board() -> StatusBoard:
    return StatusBoard(fresh_status("north", "localhost:1", "0.1", 7))


@pytest.fixture
def control(tmp_path: Path, board: StatusBoard) -> Iterator[ControlSocket]:
    made = ControlSocket(tmp_path, {"status": board.to_json})
    yield made
    made.close()


def test_only_the_owner_can_open_the_socket(control: ControlSocket, tmp_path: Path) -> None:
    mode = (tmp_path / SOCKET_FILE).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_status_comes_back_as_it_was(
    control: ControlSocket, board: StatusBoard, tmp_path: Path
) -> None:
    board.heard("no-connection")
    board.heard("no-connection")
    board.heard("")
    board.begin(work_of("train", "round 3", "study", "ab" * 32))
    board.end("budget")
    board.begin(work_of("evaluate", "test", "study", "ab" * 32))
    board.note_worker(11, 2)
    status = DaemonStatus.from_json(ask_daemon(tmp_path, "status"))
    assert status.connected_since
    assert status.work is not None
    assert status.work.kind == "evaluate"
    assert status.last is not None
    assert status.last.group == "round 3"
    assert (status.answered, status.refused, status.worker, status.worker_starts) == (1, 1, 11, 2)
    assert [(one.what, one.code, one.count) for one in status.troubles] == [
        ("connection", "no-connection", 2),
        ("refusal", "budget", 1),
    ]


def test_a_board_keeps_the_last_troubles_only(board: StatusBoard) -> None:
    for number in range(50):
        board.trouble(f"code-{number}")
    troubles = board.to_json()["troubles"]
    assert isinstance(troubles, list)
    assert len(troubles) == 10
    assert troubles[-1]["code"] == "code-49"


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"nonsense\n", b"[]\n", b'{"command": 5}\n', b"\xff\n", b"x" * 70_000]
)
def test_nonsense_on_the_socket_does_not_silence_the_daemon(
    control: ControlSocket, tmp_path: Path, line: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / SOCKET_FILE))
        caller.sendall(line)
        caller.shutdown(socket.SHUT_WR)
    assert ask_daemon(tmp_path, "status")["site"] == "north"
    with pytest.raises(RunError, match="does not answer"):
        ask_daemon(tmp_path, "erase")


def test_where_no_daemon_runs_the_way_to_start_one_is_said(
    control: ControlSocket, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="site start"):
        ask_daemon(tmp_path / "elsewhere", "status")
    control.close()
    with pytest.raises(RunError, match="site start"):
        ask_daemon(tmp_path, "status")


def test_a_socket_that_a_killed_daemon_left_is_taken_over(
    tmp_path: Path, board: StatusBoard
) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET_FILE))
    with pytest.raises(RunError, match="no daemon runs"):
        ask_daemon(tmp_path, "status")
    control = ControlSocket(tmp_path, {"status": board.to_json})
    assert ask_daemon(tmp_path, "status")["process"] == 7
    control.close()


def test_a_deep_site_folder_has_a_socket_too(tmp_path: Path, board: StatusBoard) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60) / ("c" * 60)
    deep.mkdir(parents=True)
    control = ControlSocket(deep, {"status": board.to_json})
    assert ask_daemon(deep, "status")["site"] == "north"
    control.close()
