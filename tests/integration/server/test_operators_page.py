"""The operators' page over real HTTP and TLS: who gets in, who may act, what is written down."""

import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import pkcs12
from tests.support.stage import wait_until
from tests.support.studies.tiny_study import SMALLEST_STUDY

from wardround.common.errors import InputError
from wardround.server.identity.invitations import invite
from wardround.server.identity.operator_access import (
    OPERATOR_BUNDLE,
    issue_operator,
    revoke_operator,
)
from wardround.server.operators.client import server_at
from wardround.server.operators.grpc_server import operators_served
from wardround.server.operators.page.desk import desk_page
from wardround.server.operators.page.serving import LINK_FILE, pages_served
from wardround.server.operators.wire import SERVICE
from wardround.server.scheduling.store import all_runs
from wardround.server.service.installation import init_server
from wardround.simulations.local_federation.processes import free_port


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("s") / "server"
    init_server(place, "Demo", ["localhost"], "127.0.0.1", 8443)
    return place


@contextmanager
def _on_loopback(folder: Path, may_act: bool) -> Iterator[str]:
    with pages_served(folder, f"127.0.0.1:{free_port()}", may_act, lambda _: None):
        yield (folder / LINK_FILE).read_text().strip()


def _post(link: str, name: str, client: httpx.Client | None = None, **fields: str):  # type: ignore[no-untyped-def]
    origin = "/".join(link.split("/")[:3])
    headers = {"Origin": origin, "X-Wardround": "1"}
    send = httpx.post if client is None else client.post
    return send(f"{link}do/{name}", data=fields, headers=headers)


# --- On loopback ----------------------------------------------------------------------------------


def test_the_link_is_its_owners_alone_and_goes_with_the_server(folder) -> None:
    with _on_loopback(folder, may_act=False) as link:
        assert (folder / LINK_FILE).stat().st_mode & 0o077 == 0
        assert "Demo" in httpx.get(link).text
    assert not (folder / LINK_FILE).exists()


def test_a_page_is_for_reading_only_unless_it_was_started_with_its_actions(folder) -> None:
    with _on_loopback(folder, may_act=False) as link:
        assert "data-action" not in httpx.get(link).text
        for name in ("submit", "stop", "resume", "invite"):
            answer = _post(link, name, study=SMALLEST_STUDY, run="tiny-1", site="north", hours="1")
            assert answer.status_code == 403
    assert all_runs(folder) == ()


def test_no_link_a_wrong_one_or_another_origin_does_nothing(folder) -> None:
    with _on_loopback(folder, may_act=True) as link:
        origin = "/".join(link.split("/")[:3])
        for bad in (f"{origin}/", f"{origin}/{'x' * 22}/"):
            assert httpx.get(bad).status_code == 404
            assert _post(bad, "submit", study=SMALLEST_STUDY).status_code == 404
        for headers in (
            {},
            {"Origin": "https://evil.example", "X-Wardround": "1"},
            {"Origin": "null", "X-Wardround": "1"},
            {"Origin": origin},
        ):
            answer = httpx.post(f"{link}do/submit", data={"study": SMALLEST_STUDY}, headers=headers)
            assert answer.status_code == 403
        assert httpx.get(link, headers={"Host": "evil.example"}).status_code == 421
    assert all_runs(folder) == ()


def test_what_an_operator_does_is_done_and_written_down_with_the_name(folder, caplog) -> None:
    caplog.set_level(logging.INFO)
    with _on_loopback(folder, may_act=True) as link:
        done = _post(link, "submit", study=SMALLEST_STUDY).json()
        assert done["ok"]
        assert done["said"].startswith("tiny is run tiny-1; it is next. Digest ")
        assert "Note: privacy.mode is 'none'" in done["said"]
        assert _post(link, "stop", run="tiny-1").json()["said"] == "tiny-1 is stopped."
        assert _post(link, "resume", run="tiny-1").json()["said"] == "tiny-1 is queued."
        assert "tiny-1" in httpx.get(link).text
        assert "Wardround report" in httpx.get(f"{link}files/tiny-1.html").text
        assert httpx.get(f"{link}files/none-9.html").status_code == 404
    for method in ("SubmitStudy", "StopRun", "ResumeRun"):
        assert f"operator=local method={method} by=page" in caplog.messages


def test_a_refusal_has_the_sentence_of_the_command_line(folder) -> None:
    with _on_loopback(folder, may_act=True) as link:
        answer = _post(link, "submit", study=SMALLEST_STUDY.replace('name = "tiny"', ""))
        assert (answer.status_code, answer.json()["ok"]) == (409, False)
        assert "study.name is missing: add it" in answer.json()["said"]
        assert "there is no run 'x'" in _post(link, "stop", run="x").json()["said"]
        assert "is not JSON" in _post(link, "submit", study="{").json()["said"]
        assert (
            "unknown site 'x'"
            in _post(link, "submit", study=SMALLEST_STUDY, sites="x").json()["said"]
        )
        assert "missing" in _post(link, "submit", study=" ").json()["said"]
        said = _post(link, "invite", site="north", hours="nan").json()["said"]
        assert "an invitation is for 1 to 8760 hours, not 'nan'" in said


def test_an_invitation_is_shown_once_and_written_down_without_its_token(folder, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with _on_loopback(folder, may_act=True) as link:
        done = _post(link, "invite", site="north", hours="2").json()
        token = done["secret"]
        assert len(token) > 40
        assert token not in done["said"]
        assert token not in httpx.get(link).text
        with httpx.stream("GET", f"{link}events") as events:
            for line in events.iter_lines():
                assert token not in line
                if line.startswith("data:"):
                    break
    assert token not in caplog.text
    assert "operator=local method=InviteSite by=page" in caplog.messages


@pytest.mark.parametrize("address", ["here", ":8445", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_place_that_is_none_is_refused_in_words(folder, address: str) -> None:
    with (
        pytest.raises(InputError, match=r"give HOST:PORT, e\.g\. 127\.0\.0\.1:8445"),
        pages_served(folder, address, False, lambda _: None),
    ):
        pass


# --- Over the network -----------------------------------------------------------------------------


@contextmanager
def _over_tls(folder: Path, may_act: bool = False) -> Iterator[str]:
    port = free_port()
    with pages_served(folder, f"0.0.0.0:{port}", may_act, lambda _: None):
        yield f"https://localhost:{port}/"


def _browser(folder: Path, identity: Path | None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(folder / "ca" / "ca.crt"))
    if identity is not None:
        context.load_cert_chain(identity / "operator.crt", identity / "operator.key")
    return httpx.Client(verify=context, timeout=10)


@pytest.fixture
def ann(folder) -> Path:
    place = folder.parent / "ann"
    issue_operator(folder, "ann", 30, place)
    return place


def test_over_the_network_an_operator_reads_and_acts_under_their_own_name(
    folder, ann, caplog
) -> None:
    caplog.set_level(logging.INFO)
    with _over_tls(folder, may_act=True) as link, _browser(folder, ann) as client:
        assert "Demo" in client.get(link).text
        assert not (folder / LINK_FILE).exists()
        assert _post(link, "submit", client, study=SMALLEST_STUDY).json()["ok"]
        assert client.get(link, headers={"Host": "evil.example"}).status_code == 421
    assert "operator=ann method=SubmitStudy by=page" in caplog.messages


def test_over_the_network_nobody_reads_without_an_operators_certificate(folder, ann) -> None:
    token = invite(folder, "north")
    other = folder.parent / "other"
    other.mkdir()
    from cryptography.hazmat.primitives.serialization import Encoding

    from wardround.common.security.tls_key_pair import private_pem

    (other / "operator.crt").write_bytes(token.certificate.public_bytes(Encoding.PEM))
    (other / "operator.key").write_bytes(private_pem(token.key))
    with _over_tls(folder) as link:
        with pytest.raises(httpx.TransportError), _browser(folder, None) as client:
            client.get(link)
        with _browser(folder, other) as client:
            assert client.get(link).status_code == 403
        with pytest.raises(httpx.TransportError):
            httpx.get(link.replace("https", "http"))


def test_a_certificate_that_was_taken_away_reads_no_more_not_even_what_flows(folder, ann) -> None:
    with _over_tls(folder, may_act=True) as link, _browser(folder, ann) as client:
        assert client.get(link).status_code == 200
        said: list[str] = []
        is_over = threading.Event()

        def read() -> None:
            with client.stream("GET", f"{link}events") as events:
                said.extend(events.iter_lines())
            is_over.set()

        threading.Thread(target=read, daemon=True).start()
        wait_until(lambda: client.get(link).status_code == 200)
        time.sleep(0.5)
        revoke_operator(folder, "ann")
        assert client.get(link).status_code == 403
        assert _post(link, "submit", client, study=SMALLEST_STUDY).status_code == 403
        with server_at_own(folder) as line:  # something changes, which would be sent
            line()
        assert is_over.wait(30), "the stream goes on"
        assert "tiny-1" not in "".join(said)
    assert len(all_runs(folder)) == 1


@contextmanager
def server_at_own(folder: Path) -> Iterator[object]:
    from wardround.server.operators.messages import Submission
    from wardround.server.operators.operations import Operations

    time.sleep(2.5)  # beyond the moment for which a certificate that was checked counts
    yield lambda: Operations(folder).submit(Submission(SMALLEST_STUDY))


def test_a_browser_imports_an_operators_bundle_with_the_passphrase_that_was_printed(
    wardround, folder
) -> None:
    out = folder.parent / "bob"
    said = wardround("server", "operator", "bob", "--server", folder, "--out", out, "--browser")
    assert said.code == 0, said.err
    passphrase = said.out.split()[-1]
    content = (out / OPERATOR_BUNDLE).read_bytes()
    assert (out / OPERATOR_BUNDLE).stat().st_mode & 0o077 == 0
    key, certificate, more = pkcs12.load_key_and_certificates(content, passphrase.encode())
    assert key is not None
    assert certificate is not None
    assert len(more) == 1
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_key_and_certificates(content, b"another")


# --- At the desk ----------------------------------------------------------------------------------


def test_at_the_desk_the_page_asks_by_the_api_and_the_server_writes_down_who_acts(
    folder, ann, caplog
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    links: list[str] = []
    enough = threading.Event()
    with operators_served(folder, f"localhost:{port}"), server_at(f"localhost:{port}", ann) as line:
        desk = threading.Thread(
            target=desk_page, args=(line, 0, True, links.append, enough.wait), daemon=True
        )
        desk.start()
        wait_until(lambda: links)
        (link,) = links
        assert "wardround server invite SITE" in httpx.get(link).text
        assert _post(link, "invite", site="north", hours="1").status_code == 403
        assert _post(link, "submit", study=SMALLEST_STUDY).json()["ok"]
        for _ in range(3):
            assert "tiny-1" in httpx.get(link).text
        enough.set()
        desk.join(10)
        assert not desk.is_alive()
    api = f"/{SERVICE}/"
    assert caplog.messages.count(f"operator=ann method={api}SubmitStudy") == 1
    assert caplog.messages.count(f"operator=ann method={api}ListRuns") == 1, "once in ten minutes"
