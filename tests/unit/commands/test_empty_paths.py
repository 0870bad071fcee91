"""A path that is empty is refused, whatever command it is given to."""

from pathlib import Path

import pytest
import typer
from tests.support.studies.built_in import built_in

from wardround.cli import app
from wardround.client.clinic.inference.inputs import find_inputs
from wardround.commands.empty_paths import refuse_empty_paths
from wardround.common.errors import InputError


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "heart-disease", "--out", ""],
        ["predict", "", "image.png", "--out", "out"],
        ["predict", "model", "image.png", "--out", "out", "--with", ""],
        ["site", "monitor", "status", ""],
        ["site", "review", "label", "", "a", "b", "--reader", "AB"],
        ["site", "backup", "site", ""],
        ["site", "review", "take", "site", ""],
    ],
)
def test_no_command_takes_an_empty_path_for_the_working_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = refuse_empty_paths(typer.main.get_command(app))
    with pytest.raises(InputError, match=r"empty.*shell variable"):
        command.main(words, standalone_mode=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_of_images_is_not_this_folder(name: str) -> None:
    with pytest.raises(InputError, match="empty name"):
        find_inputs([name], built_in("pneumonia-xray"))
