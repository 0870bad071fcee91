"""``docs/how-to/track-runs.md`` and ``monitor.md``: the files are read, the commands are run."""

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.studies.tiny_runs import write_tiny_study
from tests.support.studies.tiny_study import Said

from wardround.client.site.folder import SiteFile
from wardround.common.monitoring.trackers.user_file import UserFile
from wardround.server.settings import ServerFile

PAGES = Path(__file__).resolve().parents[4] / "docs" / "how-to"


def blocks(page: str, kind: str = "toml") -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [block for language, block in found if language == kind]


def test_the_files_of_the_pages_are_taken() -> None:
    for block in blocks("track-runs.md"):
        UserFile.model_validate(tomllib.loads(block))
    server, site, traces = map(tomllib.loads, blocks("monitor.md"))
    ServerFile.model_validate({"name": "x", "public_names": ["localhost"], **server, **traces})
    SiteFile.model_validate({"name": "north", **site})


def test_the_metrics_of_the_page_are_those_of_the_code() -> None:
    root = PAGES.parents[1]
    sections = (PAGES / "monitor.md").read_text(encoding="utf-8").split("## What a ")
    for file, text in (
        ("server/service/metrics.py", sections[1]),
        ("client/daemon/metrics.py", sections[2].partition("## Traces")[0]),
    ):
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        told = {name for row in rows for name in re.findall(r"`([a-z_]+)", row)}
        code = (root / file).read_text(encoding="utf-8")
        made = set(re.findall(r"\{PREFIX\}_([a-z_]+)\"", code)) | {"info", "unmeasured_parts"}
        assert {name.removesuffix("_total") for name in told} == made


@pytest.mark.pages
def test_the_commands_on_a_simulation_run_as_they_stand(
    wardround: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_study(tmp_path, simulation__compare=False)
    monkeypatch.chdir(tmp_path)
    Path("trackers.toml").write_text(blocks("track-runs.md")[0], encoding="utf-8")
    commands = [line for block in blocks("track-runs.md", "") for line in block.splitlines()]
    for command in commands:
        words = shlex.split(command)
        if words[1] != "runs":  # that one needs a server
            said = wardround(*words[1:])
            assert said.code == 0, said.err
            assert "not told" not in said.err
    for place in ("mlruns", "tensorboard", "wandb"):
        assert (tmp_path / place).is_dir()
