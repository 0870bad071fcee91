"""What each gate passes on, and to whom; everything else is refused before the link hears of it."""

import asyncio
import base64
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from wardround.common.errors import RunError
from wardround.common.flower.superlink.http_app import NODE_KEY_HEADER
from wardround.common.flower.superlink.routes import FLEET, START, TASK
from wardround.server.identity import peer_certificate
from wardround.server.link.finished_models import FinishedModels
from wardround.server.link.gates import SECRET_HEADER, SITES_PATH, Desks, InnerGate, PublicGate
from wardround.server.link.request_body import LARGEST_REQUEST
from wardround.server.link.withdrawals import Withdrawals

PULL = "/v1/fleet/pull-messages"
FORBIDDEN = (403, {"refused": "forbidden"})
CERTIFICATES = {b"north's": "north"}
NODE_KEYS = {b"north's key": "north", b"south's key": "south"}


@dataclass
class Link:
    """Writes down what got through to it."""

    heard: list[str] = field(default_factory=list)

    async def answer_site(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.heard.append(f"site {scope['path']}")
        await PlainTextResponse("passed")(scope, receive, send)

    async def answer_study(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.heard.append(f"study {scope['path']}")
        await PlainTextResponse("passed")(scope, receive, send)


class Members:
    def __init__(self, is_broken: bool = False) -> None:
        self._is_broken = is_broken

    def site_of(self, node_key: bytes) -> str | None:
        if self._is_broken:
            msg = "the roll of members cannot be read"
            raise RunError(msg)
        return NODE_KEYS.get(node_key)


@dataclass(frozen=True)
class Node:
    name: str
    status: str


class State:
    def connected_sites(self) -> list[Node]:
        return [Node("south", "offline"), Node("north", "online")]


async def _enrolment(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("enrolment")(scope, receive, send)


def _public(link: Link, members: Members | None = None) -> PublicGate:
    members: Any = members or Members()
    models = FinishedModels(Path("nowhere"), are_given=True)
    gate = (cast("Any", link), members, CERTIFICATES.get, _enrolment)
    desks = Desks(models, Withdrawals(Path("nowhere"), "consortium"))
    return PublicGate(*gate, silence_seconds=5.0, desks=desks)


def _ask(gate: Any, method: str, path: str, peer: bytes | None = None, **more: Any) -> Any:
    """Ask a gate, as the holder of a certificate."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {peer_certificate._KEY: peer}
        await gate(scope, receive, send)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def _seen(reply: httpx.Response) -> tuple[int, object]:
    return reply.status_code, reply.json()


def _key(key: bytes) -> dict[str, str]:
    return {NODE_KEY_HEADER: base64.b64encode(key).decode()}


# --- Hospitals ---------------------------------------------------------------------
@pytest.mark.parametrize("peer", [None, b"", b"a stranger's"])
@pytest.mark.parametrize("path", ["/health", PULL, "/", "/health/", SITES_PATH, *TASK, *START])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_without_a_sites_certificate_every_path_is_forbidden(method, path, peer) -> None:
    link = Link()
    assert _seen(_ask(_public(link), method, path, peer, headers=_key(b"north's key"))) == FORBIDDEN
    assert link.heard == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/health"),
        ("GET", "/health/"),
        ("GET", PULL),
        ("PUT", PULL),
        ("POST", f"{PULL}/"),
        ("GET", SITES_PATH),
        ("GET", "/wardround/enrol"),
        *(("POST", path) for path in (*TASK, *START)),
    ],
)
def test_what_is_no_call_of_a_site_is_forbidden_to_a_site_too(method: str, path: str) -> None:
    link = Link()
    reply = _ask(_public(link), method, path, b"north's", headers=_key(b"north's key"))
    assert _seen(reply) == FORBIDDEN
    assert link.heard == []


def test_a_site_with_a_flower_that_was_not_tested_is_told_so_and_the_log_says_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = Link()
    gate = _public(link)

    def ask(flower: str | None) -> httpx.Response:
        said = {} if flower is None else {"flwr-package-version": flower}
        headers = {**_key(b"north's key"), **said}
        return cast("httpx.Response", _ask(gate, "POST", PULL, b"north's", headers=headers))

    for known in (None, "1.41.0", "1.42.3"):
        assert ask(known).status_code == 200
    for _ in range(3):
        refused = ask("1.40.2")
        assert _seen(refused) == (412, {"refused": "flower-version"})
        assert refused.headers["flwr-package-version"] == version("flwr")
    assert len(link.heard) == 3
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"refused site=north: it runs flwr 1.40.2, the server {version('flwr')}")
    assert "pip install 'flwr>=1.41,<1.43'" in line
    assert ask("1.41.0").status_code == 200
    assert ask("1.9 \x1b[31m patient").status_code == 412
    assert "patient" not in caplog.text
    assert "of no readable version" in caplog.text


def test_a_head_request_is_forbidden() -> None:
    assert _ask(_public(Link()), "HEAD", "/health", b"north's").status_code == 403


def test_a_site_is_told_that_the_server_is_well() -> None:
    reply = _ask(_public(Link()), "GET", "/health", b"north's")
    assert _seen(reply) == (200, {"status": "ok"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.content))


def test_a_sites_own_calls_reach_the_link() -> None:
    link = Link()
    for path in FLEET:
        assert _ask(
            _public(link), "POST", path, b"north's", headers=_key(b"north's key")
        ).is_success
    assert link.heard == [f"site {path}" for path in FLEET]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        _key(b"south's key"),
        _key(b"nobody's"),
        {NODE_KEY_HEADER: "no base64!"},
        [(NODE_KEY_HEADER, base64.b64encode(b"north's key").decode())] * 2,
    ],
)
def test_a_site_uses_its_own_node_key_and_no_other(headers: Any) -> None:
    link = Link()
    assert _seen(_ask(_public(link), "POST", PULL, b"north's", headers=headers)) == FORBIDDEN
    assert link.heard == []


@pytest.mark.parametrize("length", [str(LARGEST_REQUEST + 1), "-1", "", "1e3", "many"])
def test_a_request_that_is_too_large_or_does_not_say_how_large_is_refused(length: str) -> None:
    link, headers = Link(), {**_key(b"north's key"), "content-length": length}
    reply = _ask(_public(link), "POST", PULL, b"north's", headers=headers)
    assert _seen(reply) == (413, {"refused": "length"})
    assert link.heard == []


def test_a_length_beside_chunks_is_no_length() -> None:
    link, chunked = Link(), {"content-length": "3", "transfer-encoding": "chunked"}
    headers = {**_key(b"north's key"), **chunked}
    reply = _ask(_public(link), "POST", PULL, b"north's", headers=headers)
    assert _seen(reply) == (413, {"refused": "length"})
    assert reply.headers["connection"] == "close"
    assert link.heard == []


def test_a_roll_that_cannot_be_read_opens_nothing() -> None:
    gate = _public(link := Link(), Members(is_broken=True))
    reply = _ask(gate, "POST", PULL, b"north's", headers=_key(b"north's key"))
    assert _seen(reply) == (503, {"refused": "unready"})
    assert link.heard == []


def test_enrolment_asks_for_certificates_itself() -> None:
    assert _ask(_public(Link()), "POST", "/wardround/enrol/join").text == "enrolment"
    assert _seen(_ask(_public(Link()), "POST", "/wardround/enrolled")) == FORBIDDEN


# --- The server's own processes ----------------------------------------------------
def _inner(link: Link) -> InnerGate:
    return InnerGate(cast("Any", link), cast("Any", State()), "secret", {"north": 5.0})


@pytest.mark.parametrize(
    "headers",
    [{}, {SECRET_HEADER: "another"}, {SECRET_HEADER: ""}, [(SECRET_HEADER, "secret")] * 2],
)
@pytest.mark.parametrize("path", [SITES_PATH, *START, *TASK])
def test_without_the_secret_of_this_start_nothing_is_answered(path: str, headers: Any) -> None:
    link = Link()
    assert _seen(_ask(_inner(link), "POST", path, headers=headers)) == FORBIDDEN
    assert link.heard == []


def test_a_study_reaches_the_link_and_no_call_of_a_site() -> None:
    link, secret = Link(), {SECRET_HEADER: "secret"}
    for path in (*START, *TASK):
        assert _ask(_inner(link), "POST", path, headers=secret).is_success
    assert link.heard == [f"study {path}" for path in (*START, *TASK)]
    for path in (*FLEET, "/health", "/", "/wardround/enrol/ca"):
        assert _seen(_ask(_inner(link), "POST", path, headers=secret)) == FORBIDDEN


def test_the_supervisor_is_told_which_sites_are_there() -> None:
    reply = _ask(_inner(Link()), "GET", SITES_PATH, headers={SECRET_HEADER: "secret"})
    sites = [
        {"site": "north", "status": "online", "left": 5.0},
        {"site": "south", "status": "offline", "left": None},
    ]
    assert _seen(reply) == (200, {"sites": sites})
