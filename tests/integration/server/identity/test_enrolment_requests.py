"""What the server does with requests that no site of ours sends."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from wardround.client.site.credentials import (
    load_site_tls,
    make_client_context,
)
from wardround.client.site.enrolment import join
from wardround.client.site.server_client import open_link
from wardround.common.security.enrolment import (
    CA_PATH,
    JOIN_PATH,
    LARGEST_BODY,
    RENEW_PATH,
    SENTENCES,
    STATUS_PATH,
    Reason,
    Reply,
    Request,
)
from wardround.server.identity.membership import members


def test_an_expired_invitation_gets_past_no_handshake(consortium: Any) -> None:
    token = consortium.invite("north", timedelta(seconds=-1))
    with pytest.raises(httpx.HTTPError):
        consortium.post(token, consortium.join_body("north"))
    assert consortium.heard == []


def test_a_request_in_another_name_is_refused_and_the_invitation_stays(
    consortium: Any, tmp_path: Path
) -> None:
    token = consortium.invite("north")
    reply = consortium.post(token, consortium.join_body("south"))
    assert (reply.status_code, reply.json()) == (403, {"refused": "wrong-name"})
    join(token, tmp_path / "north")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "unusable"),
        (b"\xff\x00", 400, "unusable"),
        (b'{"request": 3}', 400, "unusable"),
        (json.dumps({"request": "x", "node_key": "y", "node_signature": ""}).encode(), 400, None),
        (b"[" * 10_000, 400, "unusable"),
        (b"x" * (LARGEST_BODY + 1), 413, "too-large"),
        (b"x" * 5_000_000, 413, "too-large"),
    ],
)
def test_a_malformed_request_gets_one_word(
    consortium: Any, body: bytes, status: int, word: str | None
) -> None:
    token = consortium.invite("north")
    try:
        reply = consortium.post(token, body)
    except httpx.WriteError:  # the server ended a request that is far too large
        assert len(body) > LARGEST_BODY
        return
    assert reply.status_code == status
    assert set(reply.json()) == {"refused"}
    assert reply.json()["refused"] == (word or "unusable")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", CA_PATH),
        ("POST", CA_PATH),
        ("OPTIONS", CA_PATH),
        ("GET", f"{CA_PATH}/"),
        ("GET", JOIN_PATH),
        ("PUT", RENEW_PATH),
        ("GET", "/wardround/enrol/docs"),
    ],
)
def test_a_path_or_method_that_is_no_part_of_enrolment_gets_one_word(
    consortium: Any, method: str, path: str
) -> None:
    token = consortium.invite("north")
    with open_link(token.address, consortium.context(token)) as client:
        answer = client.request(method, path)
    assert answer.status_code == 404
    assert "allow" not in answer.headers
    assert method == "HEAD" or answer.json() == {"refused": "unusable"}


def test_a_node_key_that_its_sender_does_not_hold_is_refused(consortium: Any) -> None:
    body = json.loads(consortium.join_body("north"))
    body["node_key"] = json.loads(consortium.join_body("north"))["node_key"]
    reply = consortium.post(consortium.invite("north"), json.dumps(body).encode())
    assert reply.json() == {"refused": "unusable"}


def test_a_node_key_of_another_site_is_refused(consortium: Any) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    assert (
        consortium.post(consortium.invite("north"), consortium.join_body("north", key)).status_code
        == 200
    )
    reply = consortium.post(consortium.invite("south"), consortium.join_body("south", key))
    assert reply.json() == {"refused": "node-key"}


def test_a_join_that_is_played_back_issues_nothing(consortium: Any) -> None:
    token, body = consortium.invite("north"), consortium.join_body("north")
    first, again = (consortium.post(token, body).json() for _ in range(2))
    assert first == again  # the same public certificate: of no use without the key
    other = consortium.invite("south")
    assert consortium.post(other, body).json() == {"refused": "wrong-name"}
    assert len(members(consortium.folder)) == 1


def test_an_invitation_opens_nothing_but_enrolment(consortium: Any, tmp_path: Path) -> None:
    token = consortium.invite("north")
    with open_link(token.address, consortium.context(token)) as client:
        assert client.get(STATUS_PATH).json() == {"refused": "not-a-site"}
    body = json.dumps({"request": json.loads(consortium.join_body("north"))["request"]}).encode()
    assert consortium.post(token, body, RENEW_PATH).json() == {"refused": "not-a-site"}


def test_a_site_cannot_join_with_its_certificate(consortium: Any, tmp_path: Path) -> None:
    join(consortium.invite("north"), tmp_path / "north")
    tls = load_site_tls(tmp_path / "north")
    with open_link(tls.address, make_client_context(tls)) as client:
        reply = client.post(JOIN_PATH, content=consortium.join_body("north"))
    assert reply.json() == {"refused": "not-invited"}


def test_every_word_of_refusal_has_a_sentence_that_says_what_to_do() -> None:
    assert set(SENTENCES) == set(Reason)
    assert all(": " in text or ". " in text for text in SENTENCES.values())


def test_what_the_server_fails_at_leaves_no_text_of_the_error(
    consortium: Any, tmp_path: Path
) -> None:
    token = consortium.invite("north")
    (consortium.folder / "ca" / "ca.key").rename(tmp_path / "CANARY-ca.key")
    reply = consortium.post(token, consortium.join_body("north"))
    assert (reply.status_code, reply.json()) == (503, {"refused": "unready"})


def test_the_request_models_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="extra"):
        Request.model_validate({"request": "x", "more": 1})
    assert Reply(certificate="x").certificate == "x"
