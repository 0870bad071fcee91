"""Hashes of packages in a study file, and what a digest makes of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.places.packages import write_package

from wardround.common.errors import PackageError, StudyError
from wardround.common.files.packages.importing import forget_packages
from wardround.common.files.packages.snapshot import hash_of
from wardround.common.study.loading import parse_study
from wardround.common.study.lock import locked, package_notes, with_hashes
from wardround.common.study.study import Study
from wardround.simulations.notebook.studies import Study as NotebookStudy

TEXT = """# mine
[study]
name = "a"
task = "classification"

[data]
classes = ["x", "y"]
size = [16, 16]

[model]
network = "tiny-ward:net"  # of a package

[federation]
rounds = 2
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget_packages()


def content(**sections: object) -> dict[str, object]:
    return {
        "study": {"name": "a", "task": "classification"},
        "data": {"classes": ["x", "y"], "size": [16, 16]},
        "model": {"network": "tiny-ward:net"},
        **sections,
    }


def refusal_of(**sections: object) -> str:
    with pytest.raises(StudyError) as refused:
        parse_study({**content(), "packages": {"tiny-ward": "0" * 64}, **sections})
    return str(refused.value)


def test_a_lock_adds_a_table_and_touches_nothing_else() -> None:
    text, study = locked(TEXT, "study.toml")
    assert text.startswith(TEXT)
    assert study.packages == {"tiny-ward": hash_of("tiny-ward")}
    assert locked(text, "study.toml") == (text, study)


def test_a_lock_is_renewed_where_it_stands_in_the_middle(root: Path) -> None:
    old = TEXT.replace("[federation]", f'[packages]\ntiny-ward = "{"0" * 64}"\n\n[federation]')
    text, study = locked(old, "study.toml")
    assert text.count("[packages]") == 1
    assert "0" * 64 not in text
    with (root / "tiny_ward/net.py").open("a") as stream:
        stream.write("#")
    assert locked(text, "study.toml")[1].digest != study.digest


def test_a_study_without_the_hash_says_which_command_writes_it() -> None:
    with pytest.raises(StudyError, match="wardround study lock"):
        parse_study(content())


def test_a_lock_refuses_a_name_that_is_not_registered() -> None:
    with pytest.raises(StudyError, match="Known: tiny-ward:net"):
        locked(TEXT.replace("tiny-ward:net", "tiny-ward:nett"), "study.toml")


def test_a_lock_of_a_package_that_is_not_here_says_how_it_is_installed() -> None:
    with pytest.raises(PackageError, match="pip install other-ward"):
        locked(TEXT.replace("tiny-ward:net", "other-ward:net"), "study.toml")


def test_check_tells_of_another_version_and_of_none() -> None:
    study = parse_study({**content(), "packages": {"tiny-ward": "0" * 64}})
    with pytest.raises(PackageError) as refused:
        list(package_notes(study))
    assert "0" * 64 in str(refused.value)
    assert hash_of("tiny-ward") in str(refused.value)
    other = content(model={"network": "no-ward:net"}, packages={"no-ward": "0" * 64})
    assert "not installed here" in next(iter(package_notes(parse_study(other))))


def test_a_study_made_in_python_is_locked_as_it_is_made() -> None:
    assert with_hashes(content())["packages"] == {"tiny-ward": hash_of("tiny-ward")}
    study = NotebookStudy("a", "classification", classes=["x", "y"], size=[16, 16])
    changed = study.with_changes(network="tiny-ward:net")
    assert changed.packages == {"tiny-ward": hash_of("tiny-ward")}


def test_the_digest_covers_the_hash_and_is_as_before_where_there_is_none() -> None:
    one, two = (parse_study({**content(), "packages": {"tiny-ward": digit * 64}}) for digit in "01")
    assert one.digest != two.digest
    assert Study.model_validate_json(one.to_json()).digest == one.digest
    plain = parse_study(content(model={"network": "small-cnn"}))
    assert "packages" in plain.model_dump()
    assert plain.model_copy(update={"packages": {"a": "0" * 64}}).digest != plain.digest


@pytest.mark.parametrize(
    ("sections", "word"),
    [
        ({"evaluation": {"metrics": ["tiny-ward:m"]}, "privacy": {"mode": "patient"}}, "proved"),
        ({"federation": {"objective": "tiny-ward:o"}}, "never what a site does"),
        ({"model": {"network": "tiny-ward:net", "fusion": "intermediate"}}, "layers of"),
        ({"packages": {"tiny-ward": "0" * 64, "flower": "1" * 64}}, "packages.flower"),
        ({"packages": {"Tiny_Ward": "0" * 64}}, "a package's name"),
        ({"packages": {"tiny-ward": "0"}}, "64 hexadecimal digits"),
        ({"training": {"loss": "diceee"}}, "input should be"),
        (
            {
                "study": {"name": "a", "task": "segmentation"},
                "training": {"loss": "tiny-ward:l"},
                "data": {"classes": ["x", "y"], "size": [16, 16], "ignore_label": 255},
            },
            "pixel by pixel",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    sections: dict[str, object], word: str
) -> None:
    assert word in refusal_of(**sections)
