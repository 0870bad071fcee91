"""The commands of the page on the picture archive, as they stand there, with a real archive."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.pacs.gateway import results
from tests.pacs.orthanc import PASSWORD, Orthanc
from tests.support.clinic.dicom_series import make_series, write_series
from tests.support.clinic.model_folders import SEGMENTS, untrained_model
from tests.support.page_commands import blocks_of, run_command

from wardround.client.clinic.pacs.archive import open_archive
from wardround.client.clinic.pacs.settings import PacsFile

pytestmark = pytest.mark.pacs
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "pacs.md"


def _run(command: str, folder: Path) -> str:
    return run_command(command, folder, {"PACS_PASSWORD": PASSWORD})


def test_the_page_on_the_archive_is_followed_to_the_letter(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.add_files(write_series(tmp_path / "sent", make_series(1, StudyDate=_today())))
    untrained_model(tmp_path / "runs" / "first" / "models" / "federated", SEGMENTS)
    make, password, ask, fetch, predict, at_once, serve, status = blocks_of(PAGE)
    _run(make, tmp_path)
    web, *_ = blocks_of(PAGE, "toml")
    # The one thing that differs: where the archive is.
    here = web.replace("https://pacs.example.org/dicom-web", orthanc.url)
    assert here != web
    (tmp_path / "north" / "pacs.toml").write_text(here, encoding="utf-8")
    _run(password, tmp_path)
    assert "answers and lets this site in" in _run(ask, tmp_path)
    assert "Fetched 1 series" in _run(fetch, tmp_path)
    assert "0 series into new; 1 were there" in _run(fetch, tmp_path)
    assert "Predicted 1" in _run(predict, tmp_path)
    assert "Predicted 1" in _run(at_once, tmp_path)
    _run(serve, tmp_path)
    assert results(open_archive(tmp_path / "north")) == {"1.2.3.1": ["SEG", "SR"]}
    assert "1 done" in _run(status, tmp_path)
    _run(serve, tmp_path)  # again: nothing new
    assert results(open_archive(tmp_path / "north")) == {"1.2.3.1": ["SEG", "SR"]}


def test_every_table_of_the_page_is_one_that_is_taken() -> None:
    web, classic, receiver = (tomllib.loads(block) for block in blocks_of(PAGE, "toml"))
    PacsFile.model_validate(web)
    PacsFile.model_validate({**classic, **receiver})
    PacsFile.model_validate({"classic": {**classic["classic"], "retrieve": "move"}, **receiver})


def test_the_page_says_the_defaults_that_hold() -> None:
    text = PAGE.read_text(encoding="utf-8")
    held = PacsFile.model_validate({"dicomweb": {"url": "https://pacs"}})
    for table in (held.serve, held.limits):
        for key in type(table).model_fields:
            assert f"`{key}`" in text, key
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE))
    for key, said in rows.items():
        table = held.serve if key in type(held.serve).model_fields else held.limits
        value = getattr(table, key)
        shown = str(value).lower() if isinstance(value, bool) else f"{value}"
        assert said.strip("`").strip('"') in (shown, shown.removesuffix(".0")), key


def _today() -> str:
    from datetime import date

    return f"{date.today():%Y%m%d}"
