"""A simulation where only what every system has is there; what serves others asks for Linux."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.stage import bits_of, table_study, write_table

pytestmark = pytest.mark.slow
HIDING = Path(__file__).parents[2] / "support" / "places" / "other_system"
WARDROUND = (sys.executable, "-m", "wardround.cli")


def elsewhere(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command whose modules find no fcntl, pwd, resource, fork, POSIX signals or AF_UNIX."""
    done = subprocess.run(
        (*WARDROUND, *map(str, words)),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HIDING)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert "posix is hidden" in done.stderr, "else this would test nothing"
    return done


@pytest.mark.parametrize(
    "words",
    [
        ("site", "start", "nowhere"),
        ("site", "serve", "nowhere", "--model", "nowhere"),
        ("site", "stop", "SITE"),
        ("server", "start", "nowhere"),
        ("federation", "try", "STUDY"),
    ],
)
def test_what_serves_others_says_in_one_sentence_that_it_needs_linux(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    study = tmp_path / "study.toml"
    manifest = write_table(tmp_path, 30, ("north", "south"))
    study.write_text(table_study("elsewhere", manifest, rounds=1).to_toml())
    site = tmp_path / "site"
    site.mkdir()
    places = {"STUDY": str(study), "SITE": str(site)}
    done = elsewhere(*(places.get(word, word) for word in words))
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("wardround: ")
    assert " needs Linux (file locks, Unix sockets, " in said
    assert said.count(". ") == 0
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("engine", ["in-process", "pool"])
def test_a_simulation_trains_the_same_models_where_posix_is_missing(
    tmp_path: Path, engine: str
) -> None:
    """Half a minute; Windows and macOS themselves are nowhere tested."""
    study = tmp_path / "study.toml"
    manifest = write_table(tmp_path, 60, ("north", "south"))
    text = table_study("elsewhere", manifest, rounds=2, strategy="scaffold").to_toml()
    study.write_text(text.replace("compare = false", "compare = true"))
    here, there = tmp_path / "here", tmp_path / "there"
    plain = (*WARDROUND, "simulate", str(study), "--out", str(here), "--quiet")
    subprocess.run((*plain, "--engine", "in-process", "--threads", "1"), check=True)
    machine = ("--engine", engine, "--workers", 2, "--threads", 1)
    done = elsewhere("simulate", study, "--out", there, *machine)
    assert done.returncode == 0, done.stderr
    assert (done.stderr.count("posix is hidden") > 1) == (engine == "pool"), "workers are spawned"
    for model in sorted((here / "models").glob("*.safetensors")):
        assert bits_of(there / "models" / model.name) == bits_of(model), model.name
    assert (there / "report.html").exists()
