"""A TOML file is read into a model, or refused with a sentence that says what to do."""

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from wardround.common.errors import DataError
from wardround.common.files.validated_toml import load_toml, read_toml

ABSENT = "there is no such file: write one."


Digest = Annotated[str, Field(min_length=4)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "none"
    rounds: int = 0
    approved: tuple[Digest, ...] | Literal["any"] = ()
    names: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('name = "north"\nrounds = 3\n')
    return path


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_is_read_into_its_model_as_it_is_now(place: Path, cached: bool) -> None:
    first = read_toml(place, Settings, DataError, ABSENT, cached)
    assert first == Settings(name="north", rounds=3)
    assert (read_toml(place, Settings, DataError, ABSENT, cached) is first) == cached
    place.write_text('name = "south"\nrounds = 3\n')
    os.utime(place, ns=(1, 1))
    assert read_toml(place, Settings, DataError, ABSENT, cached).name == "south"
    place.unlink()
    with pytest.raises(DataError, match=ABSENT):
        read_toml(place, Settings, DataError, ABSENT, cached)


def test_an_absent_file_may_have_a_content(tmp_path: Path) -> None:
    nothing = Settings()
    assert read_toml(tmp_path / "none.toml", Settings, DataError, nothing) is nothing


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name =", r"settings\.toml is not a TOML file: .*\. Mend that line\."),
        (b'name = "\xff"', r"settings\.toml is not a TOML file: "),
        (b"round = 3", r"settings\.toml is refused: round is not a key .* 'rounds'\?"),
        (b'rounds = "x"', r"rounds = 'x' cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_each_time(
    place: Path, content: bytes, said: str, cached: bool
) -> None:
    place.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=said):
            read_toml(place, Settings, DataError, ABSENT, cached)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            'approved = "list"',
            "approved = 'list' cannot be used: it must be a list in brackets, or 'any'.",
        ),
        ('approved = ["abc"]', "approved[0] = 'abc' cannot be used: string should have at least 4"),
        ('names = ["a"]', "names[0] = 'a' cannot be used: input should be a valid integer"),
        ("names = []", "names = [] cannot be used: it must have at least 1."),
        ("names = 3", "names = 3 cannot be used: it must be a list in brackets."),
    ],
)
def test_a_value_is_refused_once_and_in_words_of_the_file(
    place: Path, content: str, said: str
) -> None:
    place.write_text(content)
    with pytest.raises(DataError) as refused:
        read_toml(place, Settings, DataError, ABSENT)
    assert said in str(refused.value)
    assert str(refused.value).count("cannot be used") == 1
    assert "tuple" not in str(refused.value)


def test_a_folder_in_the_place_of_a_file_is_refused_and_never_absent(tmp_path: Path) -> None:
    for absent in (ABSENT, Settings()):
        with pytest.raises(DataError, match=r"Is a directory.*readable file"):
            read_toml(tmp_path, Settings, DataError, absent)


def test_a_file_in_the_place_of_the_folder_is_as_if_it_were_absent(place: Path) -> None:
    with pytest.raises(DataError, match=ABSENT):
        read_toml(place / "settings.toml", Settings, DataError, ABSENT)


def test_the_bare_content_has_a_hint_of_its_own(place: Path) -> None:
    assert load_toml(place, DataError, ABSENT) == {"name": "north", "rounds": 3}
    place.write_text("[name")
    with pytest.raises(DataError, match=r"is not a TOML file: .*\. Look there\."):
        load_toml(place, DataError, ABSENT, "Look there.")
