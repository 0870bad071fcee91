"""A server as real processes on the loopback: who gets in, and what is left when one is killed."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.stage import (
    PATIENCE_SECONDS,
    WARDROUND,
    Deployment,
    bits_of,
    deployed,
    table_study,
    wait_until,
    write_table,
)

from wardround.client.site.enrolment import join
from wardround.common.security.tls_key_pair import private_pem, public_pem, read_private_key
from wardround.common.study.study import Study
from wardround.server.identity.invitations import invite
from wardround.server.identity.membership import revoke
from wardround.server.identity.pki import SITE, Authority, make_authority, open_authority
from wardround.server.identity.server_certificate import load_server_tls, renew_server_certificate
from wardround.server.link.address import read_address
from wardround.server.link.gates import SECRET_HEADER
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import StudyQueue
from wardround.server.scheduling.submission import submit_study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
ROUNDS, SITES = 8, ("site-0", "site-1")
CONTROL = (
    "/v1/control/start-run",
    "/v1/control/stop-run",
    "/v1/control/list-runs",
    "/v1/control/list-nodes",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/pull-task-input",
    "/v1/runtime/push-messages",
    "/v1/runtime/pull-messages",
    "/v1/runtime/get-nodes",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/get-fab",
    "/v1/fleet/",
    "/wardround/sites",
    "/wardround/enrol",
    "/docs",
    "/openapi.json",
    "/",
)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path, "127.0.0.1") as made:
        yield made


# --- Who gets in ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Caller:
    """Somebody who calls the public port."""

    deployment: Deployment
    certificate: Path | None = None
    version: ssl.TLSVersion | None = None

    def ask(
        self, path: str, method: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body; 0 where TLS itself refuses."""
        context = ssl.create_default_context(cafile=self.deployment.server / "ca" / "ca.crt")
        if self.version is not None:
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = self.version
        if self.certificate is not None:
            context.load_cert_chain(self.certificate)
        line = http.client.HTTPSConnection("127.0.0.1", self.deployment.port, context=context)
        try:
            line.request(method, path, b"" if method == "POST" else None, headers or {})
            reply = line.getresponse()
            return reply.status, reply.read()
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
            return 0, b""
        finally:
            line.close()


def make_certificate(
    folder: Path, authority: Authority, name: str, unit: str, life: timedelta
) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    path = folder / f"{unit}-{name}-{life.total_seconds()}.pem"
    certificate = authority.issue(unit, name, key.public_key(), life)
    path.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
    path.chmod(0o600)
    return path


def site_certificate(site: Path) -> Path:
    both = site / "both.pem"
    both.write_bytes((site / "keys" / "tls.key").read_bytes())
    both.write_bytes(both.read_bytes() + (site / "keys" / "tls.crt").read_bytes())
    return both


def node_header(site: Path) -> dict[str, str]:
    import base64

    key = read_private_key(site / "keys" / "node.key").public_key()
    return {"flwr-public-key": base64.b64encode(public_pem(key)).decode()}


def test_the_public_port_passes_a_sites_own_calls_and_nothing_else(
    deployment: Deployment,
) -> None:
    link = deployment.start_link()
    north, south = deployment.join("north"), deployment.join("south")
    site = Caller(deployment, site_certificate(north))
    assert site.ask("/health", "GET") == (200, b'{"status":"ok"}')
    for path in CONTROL:
        for method in ("GET", "POST", "PUT"):
            status, body = site.ask(path, method, node_header(north))
            assert (status, body) == (403, b'{"refused":"forbidden"}'), (path, method)
    pull = "/v1/fleet/pull-messages"
    assert site.ask(pull, headers=node_header(north))[0] == 401  # nobody signed it
    assert site.ask(pull, headers=node_header(south))[0] == 403
    assert site.ask(pull)[0] == 403
    assert site.ask(pull, "GET", node_header(north))[0] == 403
    huge = {**node_header(north), "content-length": str(2**40)}
    assert site.ask(pull, headers=huge)[0] == 413
    revoke(deployment.server, "north")
    assert site.ask("/health", "GET")[0] == 403
    assert site.ask(pull, headers=node_header(north))[0] == 403
    assert_the_inner_port_wants_its_secret(deployment, link)


def assert_the_inner_port_wants_its_secret(
    deployment: Deployment, link: subprocess.Popen[bytes]
) -> None:
    address = read_address(deployment.server)
    assert address is not None
    open_ports = {
        (line.laddr.ip, line.laddr.port)
        for line in psutil.Process(link.pid).net_connections()
        if line.status == psutil.CONN_LISTEN
    }
    assert open_ports == {("127.0.0.1", deployment.port), ("127.0.0.1", address.port)}
    for secret, status in (("", 403), ("guess", 403), (address.secret, 200)):
        line = http.client.HTTPConnection("127.0.0.1", address.port)
        line.request("GET", "/wardround/sites", headers={SECRET_HEADER: secret})
        assert line.getresponse().status == status
        line.close()
    assert (deployment.server / "link" / "inner.json").stat().st_mode & 0o077 == 0


def test_whoever_has_no_valid_certificate_gets_nothing(deployment: Deployment) -> None:
    deployment.start_link()
    deployment.join("north")
    ours, folder = open_authority(deployment.server), deployment.folder
    day, past = timedelta(days=1), timedelta(minutes=-5)
    refused_by_tls = {
        "nobody": None,
        "another CA's": make_certificate(folder, make_authority("lab"), "north", SITE, day),
        "expired": make_certificate(folder, ours, "north", SITE, past),
    }
    for name, certificate in refused_by_tls.items():
        for path in ("/health", "/v1/fleet/pull-messages", "/wardround/enrol/ca"):
            assert Caller(deployment, certificate).ask(path, "GET") == (0, b""), (name, path)
    unknown = Caller(deployment, make_certificate(folder, ours, "north", SITE, day))
    assert unknown.ask("/health", "GET")[0] == 403  # signed by the CA, and not on the list
    old = Caller(deployment, site_certificate(folder / "north"), ssl.TLSVersion.TLSv1_1)
    assert old.ask("/health", "GET") == (0, b"")
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=5) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP" not in plain.recv(100)


def test_a_server_renews_its_certificate_and_open_connections_stay(deployment: Deployment) -> None:
    settings = deployment.server / "server.toml"
    text = settings.read_text()
    settings.write_text(text.replace("certificate_days = 365.0", f"certificate_days = {1 / 72}"))
    renew_server_certificate(deployment.server)
    due = load_server_tls(deployment.server).expires
    settings.write_text(text)
    deployment.start_server()
    context = ssl.create_default_context(cafile=deployment.server / "ca" / "ca.crt")
    context.load_cert_chain(site_certificate(deployment.join("north")))

    def shown() -> datetime:
        address = ("127.0.0.1", deployment.port)
        with (
            socket.create_connection(address) as line,
            context.wrap_socket(line, server_hostname="127.0.0.1") as secured,
        ):
            expires = (secured.getpeercert() or {})["notAfter"]
            return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(expires)), UTC)

    wait_until(lambda: shown() > due + timedelta(days=364), 20)  # by itself, as it was due
    line = http.client.HTTPSConnection("127.0.0.1", deployment.port, context=context)
    assert health(line) == 200
    used, before = line.sock, shown()
    settings.write_text(text.replace("certificate_days = 365.0", "certificate_days = 366.0"))
    renew_server_certificate(deployment.server)  # as 'wardround server renew' does
    wait_until(lambda: shown() > before, 20)
    assert health(line) == 200
    assert line.sock is used
    line.close()


def health(line: http.client.HTTPSConnection) -> int:
    line.request("GET", "/health")
    reply = line.getresponse()
    reply.read()
    return reply.status


# --- What is left when one is killed --------------------------------------------------------------


def status_of(deployment: Deployment, run: str) -> RunStatus | None:
    return RunFolder(deployment.server, run).status()


def has_done(deployment: Deployment, run: str, number: int) -> bool:
    status = status_of(deployment, run)
    assert status is None or status.state not in ("failed", "stopped"), status
    return status is not None and status.round >= number


@pytest.fixture
def study(tmp_path: Path) -> Study:
    manifest = write_table(tmp_path, 60, SITES)
    federation = {"rounds": ROUNDS, "minimum_sites": len(SITES), "strategy": "fedavgm"}
    return table_study("processes", manifest, **federation)


@pytest.fixture
def with_sites(deployment: Deployment, study: Study) -> Deployment:
    """Server and daemons, connected."""
    place = deployment.folder / "split"
    place.mkdir()
    folders = prepare_sites(study, place).folders
    deployment.start_server()
    for folder in folders:
        join(invite(deployment.server, folder.name), folder)
        deployment.spawn(folder.name, "wardround.cli", "site", "start", folder)
    return deployment


@pytest.mark.long
def test_a_study_whose_link_and_process_are_killed_ends_in_the_model_of_the_simulation(
    with_sites: Deployment, study: Study, tmp_path: Path
) -> None:
    run = submit_study(with_sites.server, study).run
    wait_until(lambda: has_done(with_sites, run, 2))
    with_sites.kill_child("link.process")
    wait_until(lambda: has_done(with_sites, run, 4))
    with_sites.kill_child("scheduling.process")
    wait_until(lambda: has_done(with_sites, run, ROUNDS))
    wait_until(lambda: getattr(status_of(with_sites, run), "state", "") == "finished")
    simulate(SimulationRequest(study, tmp_path / "whole", Machine("cpu", "in-process", threads=1)))
    whole = tmp_path / "whole" / "models" / "federated.safetensors"
    assert bits_of(RunFolder(with_sites.server, run).model_path) == bits_of(whole)
    status = status_of(with_sites, run)
    assert status is not None
    assert (status.starts, status.round, status.sites) == (2, ROUNDS, SITES)
    log = (RunFolder(with_sites.server, run).path / "log.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in log]
    assert events.count("round") == ROUNDS
    assert "link lost" in events


def test_a_server_that_is_killed_leaves_no_child_and_the_next_goes_on(
    with_sites: Deployment, study: Study
) -> None:
    run = submit_study(with_sites.server, study).run
    wait_until(lambda: has_done(with_sites, run, 1))
    server = with_sites.processes[0]
    children = psutil.Process(server.pid).children(recursive=True)
    assert len(children) == 2
    server.send_signal(signal.SIGKILL)
    server.wait()
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() for child in children)
    with_sites.start_server()
    wait_until(lambda: has_done(with_sites, run, ROUNDS))


def test_a_server_told_to_end_ends_its_children_and_a_second_one_is_refused(
    deployment: Deployment,
) -> None:
    server = deployment.start_server()
    second = subprocess.run(
        [*WARDROUND, "server", "start", deployment.server],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 3
    assert "a server works in" in second.stderr
    children = psutil.Process(server.pid).children(recursive=True)
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert not any(child.is_running() for child in children)


def test_a_server_whose_port_is_taken_says_so_and_ends(deployment: Deployment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", deployment.port))
        taken.listen()
        ended = subprocess.run(
            [*WARDROUND, "server", "start", deployment.server],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
    assert ended.returncode == 3
    assert f"cannot listen on 127.0.0.1:{deployment.port}" in ended.stderr
    assert StudyQueue(deployment.server).next_run() is None
