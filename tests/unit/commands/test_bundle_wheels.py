"""A bundle of wheels: whole, held against the lock files, and refused where it is not.

The checkout is a tiny one, with one dependency in a folder that stands for an index.
``wardround bundle-wheels`` and ``install.sh`` run as they stand. Installing takes ten seconds, and
is left to 'make long'; a whole bundle was installed by hand: docs/how-to/deploy.md.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="install.sh is for a POSIX shell")
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "wardround"
version = "9.9.0"
dependencies = ["ward-lamp==1.0"]

[project.scripts]
wardround = "wardround:main"
"""
_PROGRAM = """\
def main():
    import ward_lamp

    print("wardround 9.9.0 with", ward_lamp.LIGHT)
"""


def write_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel of one module, as pip takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    facts = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code)
        title = name.replace("_", "-")
        archive.writestr(
            f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {title}\nVersion: {version}\n"
        )
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3\n")
        archive.writestr(f"{facts}/RECORD", "")
    return path


def line_of(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the files that the command reads, and an index beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "pyproject.toml").write_text(_PROJECT)
    (folder / "src" / "wardround").mkdir(parents=True)
    (folder / "src" / "wardround" / "__init__.py").write_text(_PROGRAM)
    lamp = write_wheel(folder / "index" / "ward-lamp", "ward_lamp", "1.0", "LIGHT = 'light'\n")
    torch = write_wheel(folder / "index" / "torch", "torch", "2.0", "")
    for wheel in (lamp, torch):
        page = f'<a href="{wheel.name}">{wheel.name}</a>'
        (wheel.parent / "index.html").write_text(page)
    requirements = folder / "requirements"
    requirements.mkdir()
    (requirements / "build.txt").write_text("")
    (requirements / "torch-cpu.txt").write_text(line_of(torch))
    (requirements / "site.txt").write_text(line_of(lamp))
    return folder


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PIP_")}
    return subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def bundle(checkout: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    index = (checkout / "index").as_uri()
    words = ("bundle-wheels", "--for", "site", "--out", out)
    indexes = ("--index-url", index, "--torch-index-url", index)
    return run(checkout, sys.executable, "-m", "wardround.cli", *words, *indexes, *more)


@pytest.fixture(scope="module")
def made(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle, and the digest that was printed."""
    if run(checkout, sys.executable, "-m", "pip", "--version").returncode:
        pytest.skip("this environment has no pip")
    out = tmp_path_factory.mktemp("carried") / "bundle"
    done = bundle(checkout, out, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["wheels"] == 3
    return out, facts["sha256sums"]


def test_a_bundle_holds_every_wheel_with_its_hash_and_says_how_to_install(
    made: tuple[Path, str],
) -> None:
    out, digest = made
    wheels = {path.name: path for path in (out / "wheels").iterdir()}
    assert {name.split("-")[0] for name in wheels} == {"torch", "ward_lamp", "wardround"}
    lines = sorted(line_of(path) for path in wheels.values())
    written = (out / "requirements.txt").read_text().splitlines(keepends=True)
    assert sorted(written) == lines
    assert hashlib.sha256((out / "SHA256SUMS").read_bytes()).hexdigest() == digest
    checked = run(out, "sha256sum", "--check", "--quiet", "SHA256SUMS")
    assert checked.returncode == 0, checked.stdout
    listed = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}
    assert "--no-index" in (out / "README.txt").read_text()
    for name in ("README.txt", "install.sh"):
        assert "@" not in (out / name).read_text().replace('"$@"', "")


@pytest.mark.long
def test_a_bundle_installs_without_an_index_into_a_new_environment(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    out, digest = made
    target = tmp_path / "new"
    done = run(tmp_path, "env", f"PYTHON={sys.executable}", "sh", out / "install.sh", "new")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SHA256SUMS is {digest}" in done.stdout
    assert "wardround 9.9.0 with light" in done.stdout
    again = run(tmp_path, "env", f"PYTHON={sys.executable}", "sh", out / "install.sh", target)
    assert again.returncode == 2
    assert f"{target} exists already. Name a new folder." in again.stderr


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("remove wheel", "the bundle is incomplete, wheels/ward_lamp-1.0-py3-none-any.whl is miss"),
        ("remove requirements", "the bundle is incomplete, requirements.txt is missing"),
        ("remove sums", "the bundle is incomplete, SHA256SUMS is missing"),
        ("change wheel", "wheels/ward_lamp-1.0-py3-none-any.whl was changed or damaged"),
        ("change requirements", "requirements.txt was changed or damaged"),
        ("add wheel", "wheels/ holds a file that does not belong to it"),
        ("other python", "and '{python}' is"),
        ("no python", "is not there, or has no venv"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused_in_words_and_nothing_is_installed(
    made: tuple[Path, str], tmp_path: Path, spoil: str, said: str
) -> None:
    out, python = tmp_path / "bundle", sys.executable
    shutil.copytree(made[0], out)
    wheel = out / "wheels" / "ward_lamp-1.0-py3-none-any.whl"
    if spoil == "remove wheel":
        wheel.unlink()
    elif spoil == "remove requirements":
        (out / "requirements.txt").unlink()
    elif spoil == "remove sums":
        (out / "SHA256SUMS").unlink()
    elif spoil == "change wheel":
        wheel.write_bytes(wheel.read_bytes()[:-1])
    elif spoil == "change requirements":
        (out / "requirements.txt").write_text("")
    elif spoil == "add wheel":
        shutil.copy(wheel, out / "wheels" / "ward_lamp-2.0-py3-none-any.whl")
    elif spoil == "other python":
        script = (out / "install.sh").read_text()
        (out / "install.sh").write_text(script.replace('test "$here" = "3', 'test "$here" = "2'))
    else:
        python = "/no/such/python"
    done = run(tmp_path, "env", f"PYTHON={python}", "sh", out / "install.sh", tmp_path / "new")
    assert done.returncode == 2
    assert done.stderr.startswith("wardround was not installed: ")
    assert said.format(python=python) in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_wheel_that_is_not_the_one_of_the_lock_file_is_not_bundled(
    checkout: Path, tmp_path: Path
) -> None:
    other = tmp_path / "checkout"
    shutil.copytree(checkout, other)
    lock = other / "requirements" / "site.txt"
    lock.write_text(lock.read_text()[:-5] + "0000\n")
    done = bundle(other, tmp_path / "bundle")
    if "has no pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode == 3
    assert "wardround: not all that site.txt names could be fetched from file://" in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_a_checkout_and_over_an_old_bundle_it_says_what_to_do(
    checkout: Path, tmp_path: Path
) -> None:
    nowhere = bundle(checkout, tmp_path / "bundle", "--for", "server")
    assert nowhere.returncode == 2
    assert "requirements/server.txt is not here: run this in the root of a checkout" in (
        nowhere.stderr
    )
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "torch.whl").touch()
    taken = bundle(checkout, tmp_path / "old")
    assert taken.returncode == 2
    assert "exists already: name a new folder" in taken.stderr
