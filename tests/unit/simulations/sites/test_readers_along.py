"""What readers said at a simulated site goes along to the study that goes on from its run."""

from pathlib import Path

from tests.support.stage import table_study

from wardround.common.study.loading import with_changes
from wardround.simulations.sites.preparation import take_readers_along


def _site(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n')
    return folder


def test_corrections_and_unlabelled_cases_of_the_parent_s_sites_go_along(tmp_path: Path) -> None:
    before = _site(tmp_path / "first" / "sites" / "north")
    _site(tmp_path / "first" / "sites" / "south")
    now = [_site(tmp_path / "second" / "sites" / name) for name in ("north", "south", "late")]
    (before / "review").mkdir()
    (before / "review" / "corrections.jsonl").write_bytes(b"said\n")
    (before / "unlabelled.csv").write_text("patient,image\n")
    study = table_study("year", tmp_path / "manifest.csv", rounds=1)
    parent = {"simulation.parent": str(tmp_path / "first")}

    notes = take_readers_along(with_changes(study, parent), now)

    assert notes == ("north trains on what its readers corrected in the run first.",)
    assert (now[0] / "review" / "corrections.jsonl").read_bytes() == b"said\n"
    assert (now[0] / "unlabelled.csv").exists()
    assert [(folder / "review").exists() for folder in now] == [True, False, False]


def test_a_study_without_a_parent_takes_nothing_along(tmp_path: Path) -> None:
    study = table_study("year", tmp_path / "manifest.csv", rounds=1)
    assert take_readers_along(study, [_site(tmp_path / "north")]) == ()
