"""What an operator is told where a server takes its time."""

import os
import socket
import tempfile
from pathlib import Path

import grpc
import pytest

from wardround.common.errors import RunError
from wardround.server.operators.client import ServerLine
from wardround.server.operators.wire import SOCKET_FILE, socket_target
from wardround.server.service.supervisor import hold_server
from wardround.server.settings import SERVER_FILE


@pytest.mark.skipif(os.name != "posix", reason="a server has a socket under POSIX")
def test_a_server_that_is_slow_is_not_one_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks again at once hands a study in twice."""
    monkeypatch.setattr("wardround.server.operators.client.ANSWER_SECONDS", 0.3)
    # A socket's path is short; pytest's folders are not.
    with tempfile.TemporaryDirectory() as made, socket.socket(socket.AF_UNIX) as listening:
        folder = Path(made)
        (folder / SERVER_FILE).write_text("")
        listening.bind(str(folder / SOCKET_FILE))
        listening.listen()
        with (
            hold_server(folder),
            grpc.insecure_channel(socket_target(folder / SOCKET_FILE)) as channel,
            pytest.raises(RunError, match=r"did not answer within 0\.3 s.* look before you ask"),
        ):
            ServerLine(channel, made).server()
