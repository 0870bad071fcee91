"""What is installed from a wheel is complete, and needs nothing of the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("client", "common", "server", "simulations")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel that was built from an sdist, and of that sdist."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def sources() -> set[str]:
    """Every file of the four folders that git would carry, as it is called in the wheel."""
    return {
        f"wardround/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_four_folders(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert sources() <= held
    for name in (
        "wardround/__init__.py",
        "wardround/cli.py",
        "wardround/py.typed",
        "wardround/simulations/studies/brain-tissue.toml",
        "wardround/simulations/report/templates/page.html.jinja",
    ):
        assert name in held
    assert {name.split("/")[0] for name in held} == {"wardround", "wardround-0.1.0.dist-info"}


@pytest.mark.slow
def test_the_sdist_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/wardround/cli.py"} <= names
    assert {name.removeprefix("wardround/") for name in sources()} <= names


@pytest.mark.slow
def test_the_installed_wheel_runs_without_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)  # a wheel of pure Python is installed by unpacking it
    # The dependencies come from this interpreter; of its .pth files (the editable install) and of
    # the working folder nothing is seen.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = (
        "import importlib, runpy, sys\n"
        f"sys.path[:0] = [{str(target)!r}, *{packages!r}]\n"
        "for name in ('client.app', 'common.study.study', 'server.app',"
        " 'simulations.experiment.simulate'):\n"
        "    module = importlib.import_module('wardround.' + name)\n"
        f"    assert module.__file__.startswith({str(target)!r}), module.__file__\n"
        "sys.argv = ['wardround', *sys.argv[1:]]\n"
        "runpy.run_module('wardround.cli', run_name='__main__')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def wardround(*words: str) -> str:
        done = subprocess.run(
            (sys.executable, "-I", "-S", "-c", code, *words),
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert wardround("--version") == "wardround 0.1.0\n"
    assert "brain-tissue" in wardround("data", "list")
