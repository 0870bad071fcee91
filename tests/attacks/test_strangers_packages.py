"""Who owns a package index, or a name on it, gets no code into a hospital by what pages say."""

import hashlib
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.attacks
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "run-a-site.md"
LOCK = ROOT / "requirements" / "site.txt"
TAKEN_OVER = "h11"  # pure Python: one wheel, for every machine


def commands() -> list[list[str]]:
    """Return the words of the page's three commands, after "pip"."""
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [shlex.split(line)[1:] for line in re.findall(r"^pip install .*$", text, re.MULTILINE)]
    assert len(found) == 3
    return found


def locked_version() -> str:
    found = re.search(rf"^{TAKEN_OVER}==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def offer(index: Path, name: str, version: str) -> None:
    """Put a wheel of the attacker's on an index, with a true hash of its own beside it."""
    folder = index / name
    folder.mkdir(parents=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", "print('every image, please')")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "index.html").write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>')


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    offer(folder, TAKEN_OVER, locked_version())
    offer(folder, "wardround", "99.0")
    return folder


def pip(words: list[str], index: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pip where the attacker's index is the only one, for a folder without packages."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", *words),
            *("--target", folder / "packages", "--disable-pip-version-check", "--no-cache-dir"),
        ],
        env={"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": str(index)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_package_of_the_right_name_and_version_and_of_other_content_is_refused(
    index: Path, tmp_path: Path
) -> None:
    entry = re.search(rf"^{TAKEN_OVER}==(?:.*\\\n)*.*\n", LOCK.read_text("utf-8"), re.MULTILINE)
    assert entry is not None
    lock = tmp_path / "site.txt"
    lock.write_text(entry[0], encoding="utf-8")
    asked = commands()[1]
    words = [*asked[: asked.index("-r")], "-r", str(lock), "--index-url", f"file://{index}"]
    said = pip(words, index, tmp_path)
    assert said.returncode != 0
    assert "DO NOT MATCH THE HASHES" in said.stderr
    assert not (tmp_path / "packages").exists()
    # It is the hashes that stop it: without them the attacker's code is there.
    lock.write_text(f"{TAKEN_OVER}=={locked_version()}\n", encoding="utf-8")
    fallen = pip([one for one in words if one != "--require-hashes"], index, tmp_path)
    assert fallen.returncode == 0, fallen.stderr
    assert "every image" in (tmp_path / "packages" / f"{TAKEN_OVER}.py").read_text()


def test_our_name_on_an_index_is_never_asked_for(index: Path, tmp_path: Path) -> None:
    """Whoever registers it there waits in vain: the last command reads no index."""
    words = commands()[2]
    assert words[-1] == "."
    said = pip([*words[:-1], "wardround"], index, tmp_path)
    assert said.returncode != 0
    assert "No matching distribution found for wardround" in said.stderr
    fallen = pip(["install", "--no-deps", "wardround"], index, tmp_path)  # as the pages once said
    assert fallen.returncode == 0, fallen.stderr
    assert "every image" in (tmp_path / "packages" / "wardround.py").read_text()
