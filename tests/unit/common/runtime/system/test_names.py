"""Names of files that every system takes, and whether a simulation writes any other."""

from pathlib import Path

import pytest
from tests.support.stage import table_study, write_table

from wardround.common.errors import InputError
from wardround.common.runtime.system.names import fits_everywhere, same_somewhere
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a:b", "a/b", "a\\b", "what?", "star*", "north.", "north ", "tab\t"),
        *("CON", "nul", "Aux.csv", "com1", "LPT9.tar.gz", "com¹", "con .txt"),
    ],
)
def test_what_some_system_refuses_is_found(name: str) -> None:
    assert not fits_everywhere(name)


@pytest.mark.parametrize("name", ["north", "Zürich 2", "con-1", "console", ".state", "a.b"])
def test_what_every_system_takes_is_taken(name: str) -> None:
    assert fits_everywhere(name)


def test_capitals_alone_make_no_two_files() -> None:
    assert same_somewhere(["north", "south", "North"]) == ("north", "North")
    assert same_somewhere(["north", "south"]) is None


@pytest.mark.slow
def test_every_file_of_a_run_has_a_name_for_every_system(tmp_path: Path) -> None:
    """Hospitals are called what hospitals are called; their folders are not."""
    sites = ("con", "a:b", "Nul.east", "what?")
    manifest = write_table(tmp_path, 60, sites)
    study = table_study("aux", manifest, rounds=1)
    out = tmp_path / "run"
    simulate(SimulationRequest(study, out, Machine(engine="in-process", threads=1)))
    paths = [path.relative_to(out) for path in out.rglob("*")]
    assert len([path for path in paths if path.parent == Path("sites")]) == len(sites)
    assert not [path for path in paths if not fits_everywhere(path.name)]
    assert same_somewhere(str(path) for path in paths) is None


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (("north", "CON"), "'CON', which is no name for a folder"),
        (("north", "../south"), "'../south', which is no name for a folder"),
        (("north", "North"), "'north' and 'North', which are one folder"),
    ],
)
def test_a_saved_split_whose_sites_are_no_folders_everywhere_is_refused(
    tmp_path: Path, names: tuple[str, str], fact: str
) -> None:
    manifest = write_table(tmp_path, 40, ("one", "two"))
    study = table_study("names", manifest, rounds=1)
    saved = tmp_path / "assignment.csv"
    lines = manifest.read_text().splitlines()[1:]
    rows = [f"{line.split(',')[0]},{names[n % 2]}" for n, line in enumerate(lines)]
    saved.write_text("\n".join(["patient,site", *rows]) + "\n")
    request = SimulationRequest(study, tmp_path / "run", Machine(engine="in-process"), None, saved)
    with pytest.raises(InputError, match=fact):
        simulate(request)
    assert not (tmp_path / "run").exists()
