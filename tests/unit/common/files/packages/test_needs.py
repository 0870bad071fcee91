"""What a package's code imports is hashed like its own, or comes with Wardround."""

from pathlib import Path

import pytest
from tests.support.places.packages import NETWORK, write_package

from wardround.common.errors import PackageError
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.snapshot import hash_of

NET = "tiny-ward:net"


def load(*packages: str) -> object:
    return component("networks", NET, {name: hash_of(name) for name in ("tiny-ward", *packages)})


def write(root: Path, line: str, metadata: str = "") -> None:
    write_package(root, files={"tiny_ward/net.py": line + NETWORK}, metadata=metadata)


def write_helper(root: Path) -> None:
    points = "[wardround.losses]\nx = helper_ward:x\n"
    files = {"helper_ward/__init__.py": "x = 1\n", "helper_ward/part.py": ""}
    write_package(root, "helper-ward", files, points)
    for name in ("tiny_ward/__init__.py", "tiny_ward/net.py"):  # the other one's, in its list
        record = root / "helper_ward-1.0.dist-info/RECORD"
        rows = record.read_text().splitlines()
        record.write_text("\n".join(row for row in rows if not row.startswith(name)))


@pytest.mark.parametrize(
    "line",
    [
        "import helper_ward\n",
        "from helper_ward import x as y\n",
        "def late():\n    import helper_ward.part\n",
    ],
)
def test_code_that_no_hash_stands_for_is_not_imported(site_packages: Path, line: str) -> None:
    write_helper(site_packages)
    write(site_packages, line)
    with pytest.raises(PackageError, match="imports helper_ward, of the package helper-ward"):
        load()
    assert load("helper-ward") is not None


def test_a_need_that_looks_like_an_extra_one_is_found_by_its_import(site_packages: Path) -> None:
    write_helper(site_packages)
    said = "Requires-Dist: helper-ward; extra == 'x' or python_version > '3'\n"
    write(site_packages, "import helper_ward\n", said)
    with pytest.raises(PackageError, match="lock --with helper-ward"):
        load()


def test_a_file_that_lies_about_is_of_no_package(site_packages: Path) -> None:
    (site_packages / "lying_about.py").write_text("X = 1\n")
    write(site_packages, "import lying_about\n")
    with pytest.raises(PackageError, match="imports lying_about, of no package"):
        load()


@pytest.mark.parametrize(
    "line",
    [
        "import json, scipy, torch.nn\n",
        "from . import other\nfrom tiny_ward.other import Y\n",
        "try:\n    import nowhere_at_all\nexcept ImportError:\n    pass\n",
    ],
)
def test_what_comes_with_python_or_wardround_needs_no_hash(site_packages: Path, line: str) -> None:
    files = {"tiny_ward/net.py": line + NETWORK, "tiny_ward/other.py": "Y = 1\n"}
    write_package(site_packages, files=files)
    assert load() is not None
