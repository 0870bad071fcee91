"""Runs that begin within one second each get a folder of their own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wardround.simulations.run_files.folder import new_folder, unused_folder


def test_runs_that_begin_at_once_get_different_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(unused_folder, ["my study"] * 24))
    assert len(set(found)) == len(found)
    for folder in found:
        assert folder.parent == Path("runs")
        assert folder.name.startswith("my-study-")
        new_folder(folder, "choose another")  # it is theirs: made, and empty
