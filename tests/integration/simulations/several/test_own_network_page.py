"""The commands of docs/how-to/own-network.md, word for word and in their order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.places.packages import with_package

pytestmark = [
    pytest.mark.pages,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "own-network.md"
_PATIENCE_SECONDS = 400


def blocks() -> list[str]:
    """Return the blocks that are typed, in their order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.M)
    return [text for language, text in found if not language]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell in which pip needs no network, and installs beside what is there."""
    return {
        **with_package(tmp_path / "installed"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PIP_TARGET": str(tmp_path / "installed"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the option's own value
    }


def test_a_newcomer_gets_from_a_module_to_a_private_federation(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """All of the page; about a minute of a core. By hand it is typed as it stands."""
    said = []
    for block in blocks():
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    text = "\n".join(said)
    assert "is a valid study" in text
    assert (tmp_path / "runs/private/report.html").is_file()
    assert "3 sites trained my-discs" in text
    assert re.search(r'^\[packages\]\nmy-ward = "[0-9a-f]{64}"$', text, re.M)
