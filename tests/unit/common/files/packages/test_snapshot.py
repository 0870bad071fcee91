"""The hash over a package's files, and what no hash could stand for."""

import os
from pathlib import Path

import pytest
from tests.support.places.packages import write_package

from wardround.common.errors import PackageError
from wardround.common.files.packages.snapshot import (
    hash_of,
    is_installed,
    read_package,
    registered,
)


def refusal_of(package: str = "tiny-ward") -> str:
    with pytest.raises(PackageError) as refused:
        read_package(package)
    return str(refused.value)


def test_one_byte_of_any_file_changes_the_hash(site_packages: Path) -> None:
    info = write_package(site_packages)
    before = hash_of("tiny-ward")
    for path in (site_packages / "tiny_ward/__init__.py", info / "entry_points.txt"):
        kept = path.read_bytes()
        path.write_bytes(kept + b"#")
        assert hash_of("tiny-ward") != before
        path.write_bytes(kept)
    assert hash_of("tiny-ward") == before


def test_the_hash_does_not_believe_what_the_list_of_files_says(site_packages: Path) -> None:
    info = write_package(site_packages)
    before = hash_of("tiny-ward")
    record = info / "RECORD"
    record.write_text(record.read_text().replace("sha256=", "sha256=00"))
    assert hash_of("tiny-ward") == before


def test_how_it_was_installed_is_no_part_of_the_hash(site_packages: Path) -> None:
    info = write_package(site_packages)
    before = hash_of("tiny-ward")
    extra = ("INSTALLER", "REQUESTED", "WHEEL", "direct_url.json")
    for name in extra:
        (info / name).write_text("{}")
    compiled = "tiny_ward/__pycache__/net.cpython-311.pyc"
    rows = "".join(f"{info.name}/{name},,\n" for name in extra)
    (info / "RECORD").write_text((info / "RECORD").read_text() + rows + f"{compiled},,\n")
    assert hash_of("tiny-ward") == before


def test_a_file_that_is_not_listed_is_not_read(site_packages: Path) -> None:
    write_package(site_packages)
    before = hash_of("tiny-ward")
    (site_packages / "tiny_ward/other.py").write_text("raise SystemExit\n")
    assert hash_of("tiny-ward") == before
    assert "tiny_ward/other.py" not in read_package("tiny-ward").files


def test_a_package_that_is_not_installed_says_how_it_would_be() -> None:
    assert not is_installed("no-such-ward")
    said = refusal_of("no-such-ward")
    assert "no-such-ward is not installed here" in said
    assert "pip install no-such-ward" in said


def test_two_packages_of_one_name_are_refused(
    site_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(site_packages)
    write_package(tmp_path / "other", files={"tiny_ward/net.py": "Net = None\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    assert "installed 2 times" in refusal_of()


def test_one_folder_twice_on_the_path_is_one(
    site_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(site_packages)
    (tmp_path / "lib64").symlink_to(site_packages)
    monkeypatch.syspath_prepend(str(tmp_path / "lib64"))
    assert len(hash_of("tiny-ward")) == 64


def test_a_package_in_editable_mode_is_refused(site_packages: Path) -> None:
    info = write_package(site_packages)
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    assert "editable" in refusal_of()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("tiny_ward.pth", "every start"),
        ("sitecustomize.py", "every start"),
        ("tiny_ward/fast.so", "compiled"),
        ("../../bin/tiny", "outside"),
        ("/etc/passwd", "outside"),
    ],
)
def test_what_the_hash_could_not_stand_for_is_refused(
    site_packages: Path, path: str, word: str
) -> None:
    info = write_package(site_packages)
    (info / "RECORD").write_text((info / "RECORD").read_text() + f"{path},,\n")
    assert word in refusal_of()


def test_a_link_in_the_place_of_a_file_or_of_a_folder_is_refused(
    site_packages: Path, tmp_path: Path
) -> None:
    write_package(site_packages)
    file = site_packages / "tiny_ward/net.py"
    file.rename(tmp_path / "net.py")
    file.symlink_to(tmp_path / "net.py")
    assert "is a link" in refusal_of()
    file.unlink()
    (tmp_path / "net.py").rename(file)
    (site_packages / "tiny_ward").rename(tmp_path / "elsewhere")
    (site_packages / "tiny_ward").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refusal_of()


@pytest.mark.skipif(os.name != "posix", reason="a named pipe")
def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(site_packages: Path) -> None:
    write_package(site_packages)
    file = site_packages / "tiny_ward/net.py"
    file.unlink()
    os.mkfifo(file)
    assert "no plain file" in refusal_of()


def test_a_file_that_is_listed_and_missing_is_refused(site_packages: Path) -> None:
    write_package(site_packages)
    (site_packages / "tiny_ward/net.py").unlink()
    assert "cannot be read" in refusal_of()


def test_a_package_without_a_list_of_files_is_refused(site_packages: Path) -> None:
    info = write_package(site_packages)
    (info / "RECORD").unlink()
    assert "without a list of its files" in refusal_of()


def test_what_is_registered_is_listed_without_an_import(site_packages: Path) -> None:
    write_package(site_packages, files={"tiny_ward/net.py": "raise RuntimeError\n"})
    assert "tiny-ward:net" in registered("networks")


@pytest.mark.parametrize("name", ["RECORD", "METADATA"])
def test_metadata_that_is_no_text_is_told(site_packages: Path, name: str) -> None:
    place = write_package(site_packages) / name
    place.write_bytes(place.read_bytes().replace(b"tiny", b"t\xefny"))
    with pytest.raises(PackageError, match="no text in UTF-8"):
        hash_of("tiny-ward")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("METADATA", b"Name: \xe4"),
        ("METADATA", b""),
        ("entry_points.txt", b"[wardround.losses]\nx"),
    ],
)
def test_a_package_with_broken_metadata_hides_none_of_the_others(
    site_packages: Path, name: str, content: bytes
) -> None:
    write_package(site_packages)
    broken = write_package(site_packages, "broken-ward", {"broken_ward.py": ""})
    (broken / name).write_bytes(content)
    assert "tiny-ward:net" in registered("networks")


@pytest.mark.parametrize("name", ["", "ä b/-/c", "--index-url"])
def test_what_is_no_name_is_not_offered_for_installing(name: str) -> None:
    with pytest.raises(PackageError, match="is no package's name"):
        hash_of(name)
