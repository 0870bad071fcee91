"""What is given from Python as a path, by people without a type checker."""

from pathlib import Path

import pytest

from wardround.common.errors import InputError
from wardround.common.files.usable_path import usable_path


@pytest.mark.parametrize("given", [None, 5, b"run", ["run"], object()])
def test_what_is_no_path_is_refused_with_what_it_is(given: object) -> None:
    with pytest.raises(InputError, match=f"a run folder cannot be {type(given).__name__}"):
        usable_path(given, "a run folder")


@pytest.mark.parametrize("given", ["ru\0n", "a" * 5000, Path("b" * 300)])
def test_what_no_system_takes_is_refused_and_shown_in_part(given: object) -> None:
    with pytest.raises(InputError, match="a run folder cannot have the path") as refused:
        usable_path(given, "a run folder")
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("given", ["", "nowhere", "dömäne/\N{EYES}", Path("nowhere")])
def test_what_is_not_there_is_still_a_path(given: str | Path) -> None:
    assert usable_path(given, "a run folder") == Path(given)
