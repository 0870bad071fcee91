"""The contract with Flower's SuperLink: the grid, which is a study's end of the link."""
# ruff: noqa: TID251 - a contract with internals names them

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.proto.runtime_pb2 import GetNodesRequest
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient

from wardround.common.errors import RunError
from wardround.common.flower.serverapp.grid import LinkGrid
from wardround.common.flower.serverapp.link_client import (
    Entrance,
    LinkLostError,
    Persistence,
    make_client,
)
from wardround.common.flower.superlink.long_polling import HELD_HEADER


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[Entrance, list[dict[str, str]]]]:
    """Serve HTTP with these statuses in turn, the last one again and again."""
    left, seen = list(statuses), list[dict[str, str]]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield Entrance(address, ("x-secret", "s3"), lambda: True, Path("unused")), seen
    finally:
        server.shutdown()
        server.server_close()


def test_a_study_shows_the_links_secret_and_its_own_token_and_asks_again_when_it_is_busy() -> None:
    with answering(503, 503, 200) as (entrance, seen):
        assert LinkGrid(entrance, "token").site_names() == {}
    assert len(seen) == 3
    assert (seen[-1]["x-secret"], seen[-1]["flwr-task-token"]) == ("s3", "token")


@pytest.mark.parametrize(
    ("status", "error"), [(401, LinkLostError), (403, LinkLostError), (500, RunError)]
)
def test_a_link_that_knows_nothing_of_the_run_is_lost_and_one_that_fails_is_said(
    status: int, error: type[Exception]
) -> None:
    with answering(status) as (entrance, _), pytest.raises(error):
        LinkGrid(entrance, "token").site_names()


def test_a_link_that_is_gone_is_lost_at_once_and_one_that_stays_silent_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(200) as (entrance, _):
        pass
    gone = Entrance(entrance.host_and_port, entrance.header, lambda: False, Path("unused"))
    with pytest.raises(LinkLostError):
        LinkGrid(gone, "token").site_names()
    monkeypatch.setattr("wardround.common.flower.serverapp.link_client._PATIENCE_SECONDS", 0.3)
    with pytest.raises(RunError, match="does not answer"):
        LinkGrid(entrance, "token").site_names()


def test_a_client_of_flowers_retries_through_an_object_with_invoke_alone() -> None:
    with answering(503, 200) as (entrance, seen):
        client = make_client(RuntimeHttpClient, entrance, [])
        assert not client.GetNodes(GetNodesRequest()).nodes
    assert len(seen) == 2
    assert callable(Persistence(entrance).invoke)


def test_who_asks_for_the_same_replies_again_may_be_kept_waiting_and_who_looks_is_not() -> None:
    with answering(200) as (entrance, seen):
        grid = LinkGrid(entrance, "token")
        grid.set_run(Run.create_empty(1))
        for ids in (["a"], ["a"], ["b"], ["a"]):
            assert list(grid.pull_messages(ids)) == []
    assert [HELD_HEADER in headers for headers in seen] == [False, True, False, False]
