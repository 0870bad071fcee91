"""What is installed is what was tested: a hash for each package, one index, no name of others."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wardround.common.errors import install_command

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
DOCKERFILES = [
    path
    for path in sorted((ROOT / "packaging").glob("Dockerfile*"))
    if path.suffix != ".dockerignore"
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The extras of each role, as in the Makefile.
EXTRAS = {
    "server": ("monitor", "privacy", "transformers"),
    "site": ("dicom", "export", "monitor", "ocr", "pacs", "privacy", "transformers"),
    "simulation": (
        "dicom",
        "export",
        "notebook",
        "pacs",
        "pdf",
        "privacy",
        "simulation",
        "sweep",
        "track",
        "transformers",
    ),
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_PIP = re.compile(r"(?:pip3?|uv pip|uv tool|pipx) install [^`\n]*")
_OUR_NAME = re.compile(r"""['" ]wardround(?![\w/-])""")  # not wardround-0.1.0.whl, not a folder
# Words that tell people what to type: all but what is generated, or says how things once were.
TEXTS = sorted(
    path
    for pattern in ("*.md", "*.py", "*.toml", "*.service", "Dockerfile*", "Makefile", "*.html")
    for folder in ("client", "common", "server", "simulations", "docs", "packaging", "src")
    for path in (ROOT / folder).rglob(pattern)
    if path.name != "log.md" and "decisions" not in path.parts
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")]


def entries(lock: Path) -> list[str]:
    """Return the requirements of a lock file, each with its hashes on one line."""
    lines = lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pinned(lock: Path) -> dict[str, Requirement]:
    found = [Requirement(_HASH.sub("", entry)) for entry in entries(lock)]
    return {canonicalize_name(one.name): one for one in found}


def version_of(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return only.version


def is_for_this_machine(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): number for name, number in pins}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_package_of_a_lock_file_has_an_exact_version_and_hashes(lock: Path) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert _HASH.search(entry), entry
        assert "--" not in _HASH.sub("", entry), "an index belongs to the command, not to the file"
        assert version_of(Requirement(_HASH.sub("", entry)))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_file_has_the_versions_that_are_tested(lock: Path) -> None:
    tested = constraints()
    ours = {name: version_of(one).partition("+")[0] for name, one in pinned(lock).items()}
    assert {name: tested[name] for name in ours if name in tested} == {
        name: number for name, number in ours.items() if name in tested
    }
    if lock.stem in EXTRAS:
        here = {name for name, one in pinned(lock).items() if is_for_this_machine(one)}
        assert not here - tested.keys(), "not in constraints.txt, so nobody tested it"


@pytest.mark.parametrize("role", EXTRAS)
def test_a_lock_file_holds_all_that_its_role_needs_but_torch(role: str) -> None:
    wanted = list(PROJECT["dependencies"])
    for extra in EXTRAS[role]:
        wanted += PROJECT["optional-dependencies"][extra]
    held = pinned(ROOT / "requirements" / f"{role}.txt")
    for requirement in map(Requirement, wanted):
        if requirement.name != "torch":
            there = held[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version_of(there))
    assert "torch" not in held  # with CUDA or without: a file of its own
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    made = re.search(rf"^lock-{role}: EXTRAS = (.*)$", makefile, re.MULTILINE)
    assert made is not None
    assert tuple(re.findall(r"--extra (\S+)", made[1])) == EXTRAS[role]


def test_torch_has_a_hash_for_each_python_and_processor() -> None:
    """The index of PyTorch has a wheel for x86-64 and one for ARM, for each version of Python."""
    (torch,) = entries(ROOT / "requirements" / "torch-cpu.txt")
    assert torch.startswith(f"torch=={constraints()['torch']}+cpu ")
    assert len(_HASH.findall(torch)) == 2 * len(PYTHONS)


def pip_commands(dockerfile: Path) -> list[str]:
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    runs = [line for line in text.splitlines() if line.startswith("RUN")]
    parts = [part for line in runs for part in re.split(r"&&|;|\|\|", line)]
    return [part for part in parts if re.search(r"\b(pip|uv) +(install|wheel|download)\b", part)]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_made_from_one_index_a_command_with_hashes_and_builds_nothing_of_others(
    dockerfile: Path,
) -> None:
    commands = pip_commands(dockerfile)
    assert len(commands) >= 4
    for command in commands:
        assert "--extra-index-url" not in command
        assert "--find-links" not in command
        assert "--trusted-host" not in command
        if "--no-index" in command:  # our own wheel, from the checkout
            assert "--no-deps" in command
            continue
        assert command.count("--index-url") == 1
        assert "--require-hashes" in command
        # A source distribution builds with whatever its build asks for, without hashes.
        assert "--only-binary :all:" in command
        assert re.findall(r"-r +\"?(\S+?\.txt)", command), "nothing by its bare name"


def test_no_dockerfile_was_left_out() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.server", "Dockerfile.site"]


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nobody_is_told_to_install_a_name_that_is_not_ours(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in _PIP.findall(text):
        assert not _OUR_NAME.search(command), f"whose is that package? {command}"
        assert "--extra-index-url" not in command, f"two indexes: {command}"
    assert "wardround[" not in text, "an extra can only be installed by a name that is not ours"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/{one}"
            for one in (
                "tutorials/first-simulation.md",
                "how-to/run-a-site.md",
                "how-to/operate-a-server.md",
            )
        ),
    ],
)
def test_a_page_that_installs_does_it_with_hashes_and_from_one_index(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^pip install .*$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands[:2]:
        assert "--require-hashes" in command
        assert command.count("--index-url") == 1
        for lock in re.findall(r"-r (\S+)", command):
            assert (ROOT / lock).is_file()
    assert "--no-index" in commands[2]


@pytest.mark.parametrize(
    "lock",
    [*(pytest.param(one, marks=pytest.mark.long) for one in ("site", "server")), "simulation"],
)
def test_pip_itself_reads_a_lock_file_and_finds_what_is_installed_here_in_it(lock: str) -> None:
    """Without an index pip can only be content where all is there in the version of the file."""
    held = pinned(ROOT / "requirements" / f"{lock}.txt")
    wrong = {
        name: (version(name), version_of(one))
        for name, one in held.items()
        if is_for_this_machine(one) and version(name) != version_of(one)
    }
    assert not wrong
    said = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps"),
            *("--require-hashes", "-r", ROOT / "requirements" / f"{lock}.txt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named pip" in said.stderr:
        pytest.skip("this environment has no pip")
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_remedy_for_a_missing_package_names_that_package_and_not_ours() -> None:
    assert install_command("privacy") == "pip install 'dp-accounting>=0.5'"
    assert install_command("simulation", "sweep") == (
        "pip install 'jinja2>=3' 'nilearn>=0.11' 'pooch>=1.8' 'optuna>=4'"
    )
    for extra in set(PROJECT["optional-dependencies"]) - {"test"}:
        assert "wardround" not in install_command(extra)
        assert install_command(extra) != "pip install "
