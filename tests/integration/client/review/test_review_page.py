"""Each command of ``docs/how-to/review-cases.md``, run as it stands there."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.clinic.model_folders import untrained_model
from tests.support.hospitals.review_ward import CLASSIFIES, review_site
from tests.support.studies.tiny_study import Said

pytestmark = pytest.mark.pages
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "review-cases.md"


def test_the_commands_run_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wardround: Callable[..., Said]
) -> None:
    monkeypatch.chdir(tmp_path)
    review_site(tmp_path / "north", unlabelled=6)
    untrained_model(tmp_path / "model", CLASSIFIES)
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 6
    said = ""
    for command in commands:
        words = shlex.split(command)
        if words[0] != "wardround":
            subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=60)
            continue
        done = wardround(*words[1:])
        assert done.code == 0, command + done.err
        said += done.out
    shown = re.search(r"^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert shown is not None
    for line in shown[1].splitlines():
        assert re.split(r"[:(]", line)[0].strip() in said
    assert re.search(r"did not beat random|beat random|did worse than random", said)
