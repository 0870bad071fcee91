"""Small bad tables from public bug reports, each by the command that a user would type.

They lie beside the checkout and are no part of it; where they are absent these tests skip. The
same faults are made anew in tests/unit/client/data/manifest/test_saved_tables.py and elsewhere.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.studies.tiny_study import Said

from wardround.common.files.tables import read_table
from wardround.simulations.run_files.folder import SplitRow

Run = Callable[..., Said]
Case = Callable[[str], Path]
NOBODY = 65534


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a copy of a case by the number that its folder begins with."""

    def copy(number: str) -> Path:
        data = os.environ.get("WARDROUND_DATA")
        shared = Path(data).parent if data else Path(__file__).resolve().parents[5] / "shared"
        found = sorted((shared / "cases").glob(f"{number}-*"))
        if not found:
            pytest.skip("the cases are absent: set WARDROUND_DATA to the folder beside them")
        return Path(shutil.copytree(found[0], tmp_path / "case"))

    return copy


def patients(run: Run, study: Path, out: Path, *words: object) -> int:
    """Split a study's data and return how many patients its only site has."""
    said = run("split", study, "--out", out, *words)
    assert said.code == 0, said.err
    rows = read_table(out / "split.csv", SplitRow)
    return sum(row.patients for row in rows if not row.class_name)


@pytest.mark.parametrize("number", ["54", "65"])
def test_a_table_is_read_as_it_was_saved(
    case: Case, wardround: Run, tmp_path: Path, number: str
) -> None:
    folder = case(number)
    said = wardround(
        "simulate", folder / "study.toml", "--out", tmp_path / "run", "--engine", "in-process",
        "--threads", "1", "--quiet", "--no-compare", "--rounds", "1",
    )  # fmt: skip
    assert said.code == 0, said.err
    rows = read_table(tmp_path / "run" / "split.csv", SplitRow)
    assert sum(row.patients for row in rows if not row.class_name) == 12


@pytest.mark.parametrize("name", ["blanks.csv", "capitals.csv", "manifest.csv"])
def test_names_of_columns_may_have_blanks_and_capitals(
    case: Case, wardround: Run, tmp_path: Path, name: str
) -> None:
    folder = case("58")
    option = f"simulation.options.manifest={folder / name}"
    assert patients(wardround, folder / "study.toml", tmp_path / "run", "--set", option) == 12


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("57", ("manifest.csv has two columns label", "rename")),
        ("60", ("the patient is also in another split in row 3",)),
        ("62", ("case/manifest.csv is refused", "names no class of the study in row 9:")),
        ("70", ("the same image is trained on and tested on, in rows 2, 3, 4",)),
        ("84", ("from row 16 on, where a quote opens", 'write ""')),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "split"])
def test_a_table_that_is_wrong_is_refused_with_its_row(
    case: Case, wardround: Run, tmp_path: Path, number: str, words: tuple[str, ...], command: str
) -> None:
    folder = case(number)
    study = folder / "study.toml"
    if "manifest" not in study.read_text():  # of a site: told to a simulation
        study.write_text(
            f'{study.read_text()}\n[simulation]\ndata = "folder"\nsplit = "iid"\nsites = 1\n'
            '[simulation.options]\nmanifest = "manifest.csv"\n'
        )
    said = wardround(command, study, "--out", tmp_path / "run")
    assert said.code == 2
    for word in words:
        assert word in said.err
    assert "see the log" not in said.err
    assert not (tmp_path / "run").exists()


def test_a_study_is_run_from_another_folder(
    case: Case, wardround: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = case("77")
    monkeypatch.chdir("/")
    assert patients(wardround, folder / "study.toml", tmp_path / "run") == 12


def images(run: Run, folder: Path) -> dict[str, str]:
    checks = json.loads(run("site", "doctor", folder, "--json").out)
    (found,) = (check for check in checks if check["name"] == "images")
    assert isinstance(found, dict)
    return found


def test_the_doctor_finds_files_that_are_cut_or_empty(case: Case, wardround: Run) -> None:
    check = images(wardround, case("36"))
    assert check["status"] == "fail"
    assert check["fact"].startswith("2 of 4 files cannot be used")
    assert "(EOFError), in row 3; the file is empty, in row 4" in check["fact"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
@pytest.mark.parametrize("closed", ["images", "images/p03.png"])
def test_the_doctor_says_which_files_the_account_may_not_read(
    case: Case, wardround: Run, closed: str
) -> None:
    with tempfile.TemporaryDirectory() as place:  # which another account may enter
        Path(place).chmod(0o755)
        folder = Path(shutil.copytree(case("83"), Path(place) / "case"))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        (folder / closed).chmod(0)
        check = images(wardround, folder)
    assert "may not read the file, in row" in check["fact"]
    assert check["fact"].startswith("1 of 12" if closed.endswith(".png") else "12 of 12")
    assert check["remedy"] == "give the account the right to read them."


def test_a_site_whose_quote_is_not_closed_is_told_the_row(case: Case, wardround: Run) -> None:
    checks = json.loads(wardround("site", "doctor", case("84"), "--json", "--quick").out)
    (found,) = (check for check in checks if check["name"] == "manifest")
    assert "from row 16 on, where a quote opens" in found["fact"]
    assert "disk" not in found["remedy"]
