"""What is imported of a package: the bytes that were hashed, and nothing before they were."""

import importlib
import sys
from pathlib import Path

import pytest
from tests.support.places.packages import LEAVES_A_MARK, NETWORK, write_package

from wardround.common.errors import PackageError
from wardround.common.files.packages.importing import component, loaded_hash, require_installed
from wardround.common.files.packages.snapshot import hash_of

NET = "tiny-ward:net"


def load(text: str = NET, kind: str = "networks") -> object:
    return component(kind, text, {"tiny-ward": hash_of("tiny-ward")})


def refusal_of(text: str = NET, kind: str = "networks") -> str:
    with pytest.raises(PackageError) as refused:
        load(text, kind)
    return str(refused.value)


def test_a_package_with_the_study_s_hash_is_imported(site_packages: Path) -> None:
    write_package(site_packages)
    found = load()
    assert isinstance(found, type)
    assert found.__name__ == "Net"
    assert loaded_hash("tiny-ward") == hash_of("tiny-ward")


def test_nothing_is_imported_before_the_hash_is_that_of_the_study(
    site_packages: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "imported"
    code = LEAVES_A_MARK.format(place=str(mark))
    write_package(site_packages, files={"tiny_ward/__init__.py": code})
    for hashes in ({}, {"tiny-ward": "0" * 64}):
        with pytest.raises(PackageError):
            component("networks", NET, hashes)
    with pytest.raises(PackageError) as refused:
        require_installed({"tiny-ward": "0" * 64})
    assert "0" * 64 in str(refused.value)
    assert hash_of("tiny-ward") in str(refused.value)
    assert "tiny_ward" not in sys.modules
    assert not mark.exists()
    load()
    assert mark.exists()


def test_a_file_that_changes_after_it_was_hashed_changes_nothing_of_what_runs(
    site_packages: Path,
) -> None:
    late = "def late():\n    from tiny_ward.late import VALUE\n    return VALUE\n"
    files = {"tiny_ward/net.py": NETWORK + late, "tiny_ward/late.py": "VALUE = 'read'\n"}
    write_package(site_packages, files=files)
    load()
    (site_packages / "tiny_ward/late.py").write_text("VALUE = 'changed'\n")
    assert sys.modules["tiny_ward.net"].late() == "read"


def test_a_compiled_copy_beside_the_file_is_not_run(site_packages: Path) -> None:
    import py_compile

    write_package(site_packages)
    other = site_packages.parent / "other.py"
    other.write_text("Net = 'another'\n")
    cached = Path(importlib.util.cache_from_source(str(site_packages / "tiny_ward/net.py")))
    cached.parent.mkdir()
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), cfile=str(cached), invalidation_mode=mode)
    assert isinstance(load(), type)


def test_a_module_that_is_not_listed_is_nowhere(site_packages: Path) -> None:
    write_package(
        site_packages, files={"tiny_ward/net.py": "from tiny_ward import hidden\nNet = 1\n"}
    )
    (site_packages / "tiny_ward/hidden.py").write_text("")
    assert "ImportError" in refusal_of()
    assert "tiny_ward" not in sys.modules


def test_a_package_may_not_register_code_of_others(site_packages: Path) -> None:
    write_package(site_packages, entry_points="[wardround.networks]\nnet = os:system\n")
    assert "none of the package's own" in refusal_of()


def test_a_name_that_is_registered_twice_is_refused(site_packages: Path) -> None:
    twice = "[wardround.networks]\nnet = tiny_ward.net:Net\nnet = tiny_ward:net\n"
    write_package(site_packages, entry_points=twice)
    assert "twice" in refusal_of()


def test_an_unknown_name_lists_those_that_are_known(site_packages: Path) -> None:
    write_package(site_packages)
    assert "Known: tiny-ward:net" in refusal_of("tiny-ward:nett")


@pytest.mark.parametrize("module", ["json", "wardround", "torch", "pytest"])
def test_a_package_that_hides_another_s_module_is_refused(site_packages: Path, module: str) -> None:
    write_package(site_packages, files={f"{module}/__init__.py": ""})
    assert f"has a module {module}" in refusal_of()


def test_a_package_that_another_folder_hides_is_refused(
    site_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(site_packages)
    (tmp_path / "first/tiny_ward").mkdir(parents=True)
    (tmp_path / "first/tiny_ward/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    assert "called as what lies in" in refusal_of()


def test_a_package_that_was_imported_unchecked_is_refused(site_packages: Path) -> None:
    write_package(site_packages)
    importlib.import_module("tiny_ward.net")
    try:
        assert "before its files were checked" in refusal_of()
    finally:
        for name in ("tiny_ward.net", "tiny_ward"):
            del sys.modules[name]


def test_an_import_that_fails_is_told_and_leaves_nothing(site_packages: Path) -> None:
    write_package(site_packages, files={"tiny_ward/net.py": "raise SystemExit(3)\n"})
    assert "SystemExit" in refusal_of()
    assert "tiny_ward" not in sys.modules


def test_an_import_that_fails_in_a_way_of_its_own_is_told_too(site_packages: Path) -> None:
    code = "class Odd(BaseException):\n    pass\n\n\nraise Odd\n"
    write_package(site_packages, files={"tiny_ward/net.py": code})
    assert "ended with Odd" in refusal_of()


def test_a_module_says_its_own_encoding(site_packages: Path) -> None:
    write_package(site_packages)
    place = site_packages / "tiny_ward/net.py"
    for content in (
        b"# -*- coding: latin-1 -*-\nNet = '\xe4'\n",
        b"\xef\xbb\xbfNet = '\xc3\xa4'\n",
    ):
        place.write_bytes(content)
        assert load() == "ä"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("net = ???", "not written as module:name"),
        ("net =", "not written as module:name"),
        ("net", "entry_points.txt of tiny-ward cannot be read"),
    ],
)
def test_what_is_registered_in_no_form_is_told(site_packages: Path, line: str, words: str) -> None:
    write_package(site_packages, entry_points=f"[wardround.networks]\n{line}\n")
    assert words in refusal_of()


def test_what_a_package_needs_must_have_a_hash_too(site_packages: Path) -> None:
    write_package(site_packages, metadata="Requires-Dist: torch>=2\nRequires-Dist: helper-ward\n")
    assert "needs helper-ward" in refusal_of()
    root = site_packages
    write_helper(root)
    hashes = {name: hash_of(name) for name in ("tiny-ward", "helper-ward")}
    (root / "tiny_ward/net.py").write_text("import helper_ward\nNet = helper_ward.VALUE\n")
    hashes["tiny-ward"] = hash_of("tiny-ward")
    assert component("networks", NET, hashes) == 3
    del hashes["helper-ward"]  # another study: what was found for the first is not found for it
    with pytest.raises(PackageError, match="needs helper-ward"):
        component("networks", NET, hashes)


def write_helper(root: Path) -> None:
    info = root / "helper_ward-1.0.dist-info"
    info.mkdir()
    (root / "helper_ward.py").write_text("VALUE = 3\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: helper-ward\nVersion: 1.0\n")
    rows = ("helper_ward.py,,", f"{info.name}/METADATA,,", f"{info.name}/RECORD,,")
    (info / "RECORD").write_text("\n".join(rows))


def test_a_new_version_takes_the_place_of_the_old_in_one_process(site_packages: Path) -> None:
    write_package(site_packages)
    load()
    (site_packages / "tiny_ward/net.py").write_text("Net = 'new'\n")
    assert load() == "new"
