"""The compose file: read as the specification says, and held to what it promises.

No Docker daemon runs here and no image was ever built: what can be checked is the files.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.unit.project.deployment.workloads import (
    SECRETS,
    check_command,
    commands_in_containers,
    page,
)

from wardround.client.clinic.pacs.settings import PacsFile, read_secret

FOLDER = Path(__file__).resolve().parents[4] / "packaging" / "compose"
FILES = ("compose.yaml", "compose.public.yaml")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
PUBLIC: dict[str, Any] = yaml.safe_load((FOLDER / "compose.public.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SITES = ("north", "south", "west")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_the_compose_specification_allows(name: str) -> None:
    found = find_spec("check_jsonschema")  # its code is not needed, which takes a while to import
    if found is None or found.origin is None:
        pytest.skip("no check-jsonschema: it brings the specification's schema")
    place = Path(found.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(place.read_text("utf-8"))
    jsonschema.validate(yaml.safe_load((FOLDER / name).read_text("utf-8")), schema)


def test_docker_compose_itself_reads_the_files(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False).returncode:
        pytest.skip("no docker compose")
    files = [word for name in FILES for word in ("-f", FOLDER / name)]
    command = [docker, "compose", "--env-file", FOLDER / ".env.example", *files, "config"]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_there_is_a_server_and_three_sites_with_an_archive_each() -> None:
    assert set(SERVICES) == {"server"} | {
        f"{one}-{s}" for one in ("site", "archive") for s in SITES
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_right_writes_to_its_volume_alone_and_is_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].startswith("${WARDROUND_UID:?")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & service.keys()
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["stop_grace_period"] == "45s"
    assert all(one.startswith("/tmp:") for one in service["tmpfs"])
    writable = [one for one in service["volumes"] if not one.endswith(":ro")]
    assert len(writable) == 1
    assert not [one for one in service["volumes"] if "docker.sock" in one]


@pytest.mark.parametrize("name", SERVICES)
def test_no_port_is_published_and_no_secret_stands_in_an_environment(name: str) -> None:
    assert "ports" not in SERVICES[name]
    for variable, text in SERVICES[name].get("environment", {}).items():
        assert not SECRETS.search(variable)
        assert not re.search(r"[0-9a-f]{16}", str(text))
    for line in (FOLDER / ".env.example").read_text("utf-8").splitlines():
        assert not SECRETS.search(line.partition("=")[0]) or line.startswith("#")


def test_the_servers_one_port_is_all_that_the_public_file_opens() -> None:
    assert PUBLIC["services"] == {"server": {"ports": ["8443:8443"], "networks": ["public"]}}


def test_a_site_reaches_the_server_and_its_own_archive_and_nothing_else() -> None:
    """Every network is internal, and holds two: a site with the server, a site with its archive."""
    members: dict[str, set[str]] = {name: set() for name in COMPOSE["networks"]}
    for name, service in SERVICES.items():
        for network in service["networks"]:
            members[network].add(name)
    assert all(network == {"internal": True} for network in COMPOSE["networks"].values())
    assert members == {
        **{f"to-{site}": {"server", f"site-{site}"} for site in SITES},
        **{f"archive-{site}": {f"archive-{site}", f"site-{site}"} for site in SITES},
    }


@pytest.mark.parametrize("site", SITES)
def test_a_secret_is_a_file_of_one_site_and_only_what_needs_it_gets_it(site: str) -> None:
    given = {
        name: {one["source"] for one in service.get("secrets", [])}
        for name, service in SERVICES.items()
    }
    assert given[f"site-{site}"] == {f"{site}-archive-password", f"{site}-archive-ca"}
    assert given[f"archive-{site}"] == {f"{site}-archive-users", f"{site}-archive-key"}
    assert not given["server"]
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"].startswith(f"./state/secrets/{name.partition('-')[0]}/")


@pytest.mark.parametrize("name", ["server", *(f"site-{site}" for site in SITES)])
def test_every_command_of_the_file_is_one_of_ours(name: str) -> None:
    role = name.partition("-")[0]
    service = SERVICES[name]
    assert service["command"] == ["start", f"/wardround/{role}"]
    check_command(["wardround", role, *service["command"]])
    check_command(service["healthcheck"]["test"][1:])


def test_what_the_page_has_run_in_a_container_is_a_command_of_ours() -> None:
    commands = list(commands_in_containers(page("deploy.md")))
    assert len(commands) == 7
    for words in commands:
        check_command(words)
    with pytest.raises(AssertionError):
        check_command(["wardround", "server", "invites"])
    with pytest.raises(AssertionError):
        check_command(["wardround", "server", "invite", "north", "--folder", "x"])


def test_every_variable_is_explained_in_the_example() -> None:
    example = (FOLDER / ".env.example").read_text("utf-8")
    used = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text("utf-8")))
    assert used == set(re.findall(r"^#?(\w+)=", example, re.MULTILINE))


# --- prepare.sh -----------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder in which prepare.sh ran, under an account without rights."""
    if shutil.which("openssl") is None or sys.platform != "linux":
        pytest.skip("prepare.sh needs openssl")
    for name in ("prepare.sh", ".env.example"):
        shutil.copy(FOLDER / name, tmp_path)
    account = 54_321 if os.geteuid() == 0 else None
    if account is not None:
        os.chown(tmp_path, account, account)
        for parent in tmp_path.parents[:3]:  # a worker of pytest has a folder of its own
            parent.chmod(0o755)
    for _ in range(2):  # the second time changes nothing
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        done = subprocess.run(
            ["sh", "./prepare.sh"],
            cwd=tmp_path,
            user=account,
            group=account,
            extra_groups=None if account is None else [],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    return tmp_path


def test_what_is_prepared_fits_together_and_nobody_else_can_read_it(prepared: Path) -> None:
    owner = prepared.stat().st_uid
    assert f"WARDROUND_UID={owner}\n" in (prepared / ".env").read_text()
    for service in SERVICES.values():
        for volume in service["volumes"]:
            place = volume.partition(":/")[0]
            place = re.sub(r"\$\{\w+:-(.*)\}", r"\1", place)
            assert (prepared / place).is_dir(), place
    for secret in COMPOSE["secrets"].values():
        path = prepared / secret["file"]
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert len({(prepared / f"state/secrets/{s}/archive-password").read_text() for s in SITES}) == 3
    for site in SITES:
        folder = prepared / "state" / "secrets" / site
        table = tomllib.loads((folder / "pacs.toml").read_text())["dicomweb"]
        assert PacsFile.model_validate({"dicomweb": table})
        assert table["url"] == f"https://archive-{site}:8042/dicom-web"
        targets = {one["target"] for one in SERVICES[f"site-{site}"]["secrets"]}
        for key in ("password_file", "ca_file"):
            assert Path(table[key]).name in targets
        users = json.loads((folder / "users.json").read_text())["RegisteredUsers"]
        assert users == {"wardround": read_secret(folder, "archive-password", "")}
        ssl.create_default_context(cafile=folder / "archive-ca.pem")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "archive.pem")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root is refused")
def test_root_is_refused(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "prepare.sh", tmp_path)
    done = subprocess.run(["sh", tmp_path / "prepare.sh"], capture_output=True, check=False)
    assert done.returncode == 2
    assert not (tmp_path / "state").exists()
