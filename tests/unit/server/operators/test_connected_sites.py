"""Which sites are connected is asked of the link, with its secret, and remembered."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from wardround.server.link.address import LinkAddress, read_address, write_address
from wardround.server.link.gates import SECRET_HEADER, SITES_PATH
from wardround.server.operators.connected_sites import (
    LINK_SECRET_HEADER,
    LINK_SITES_PATH,
    PresenceMonitor,
    connected_sites,
    look_who_is_there,
)
from wardround.server.scheduling.store import all_sites, changing

_SITES = {"sites": [{"site": "north", "status": "online"}, {"site": "south", "status": "offline"}]}


@contextmanager
def _link(folder: Path, content: object) -> Iterator[None]:
    """A link that answers one question, to whoever knows its secret."""

    class Link(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # its name for a request
            known = self.headers.get(SECRET_HEADER) == "secret" and self.path == SITES_PATH
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            pass

    link = HTTPServer(("127.0.0.1", 0), Link)
    thread = threading.Thread(target=link.serve_forever, daemon=True)
    thread.start()
    write_address(folder, LinkAddress(link.server_port, "secret"))
    try:
        yield
    finally:
        link.shutdown()
        link.server_close()


def test_the_links_gate_is_asked_as_it_wants_to_be() -> None:
    assert (LINK_SECRET_HEADER, LINK_SITES_PATH) == (SECRET_HEADER, SITES_PATH)


def test_the_sites_that_are_online_are_connected(tmp_path) -> None:
    with _link(tmp_path, _SITES):
        assert connected_sites(tmp_path) == {"north"}


def test_a_site_without_an_open_connection_is_told_of_before_its_heartbeat_is_missed(
    tmp_path,
) -> None:
    sites = [
        {"site": "north", "status": "online", "left": 7.5},
        {"site": "east", "status": "online", "left": None},
        {"site": "south", "status": "offline", "left": 3.0},
    ]
    with _link(tmp_path, {"sites": sites}):
        found = look_who_is_there(tmp_path)
    assert found is not None
    assert found.connected == {"north", "east"}
    assert found.left == {"north": 7.5}


def test_without_a_link_or_its_secret_nothing_is_known(tmp_path) -> None:
    assert connected_sites(tmp_path) is None
    with _link(tmp_path, _SITES):
        address = read_address(tmp_path)
        assert address is not None
        write_address(tmp_path, LinkAddress(address.port, "another"))
        assert connected_sites(tmp_path) is None
    assert connected_sites(tmp_path) is None


@pytest.mark.parametrize("content", [[], {"sites": 7}, {"sites": [{"site": "north"}]}, "x"])
def test_a_reply_that_is_no_list_of_sites_counts_as_none(tmp_path, content: object) -> None:
    with _link(tmp_path, content):
        assert connected_sites(tmp_path) is None


def test_a_lookout_notes_who_is_there(tmp_path) -> None:
    with changing(tmp_path) as connection:
        for site in ("north", "south"):
            connection.execute("INSERT INTO members VALUES (?, ?, 5.0)", (site, site))
    with _link(tmp_path, _SITES):
        lookout = PresenceMonitor(tmp_path, every_seconds=0.05)
        deadline = time.monotonic() + 10
        while all_sites(tmp_path)[0].seen is None and time.monotonic() < deadline:
            time.sleep(0.05)
        lookout.close()
    north, south = all_sites(tmp_path)
    assert north.seen is not None
    assert south.seen is None
