"""The examples of ``docs/reference/python-api.md``, run word for word."""

import re
from pathlib import Path

import pytest
from tests.support.studies.tiny_runs import write_tiny_study

pytestmark = pytest.mark.pages
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "python-api.md"


def test_the_examples_run_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 10
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"python-api.md, example {number}", "exec"), names)
    said = capfd.readouterr()
    assert "tiny table ('no', 'yes')" in said.out
    assert "Did you mean 'heart-disease'?" in said.out
    assert said.err == ""
    assert (tmp_path / "runs" / "first" / "report.html").is_file()


@pytest.mark.parametrize(("words", "most"), [("five", 5), ("fifteen", 15)])
def test_the_short_examples_are_as_short_as_they_say(words: str, most: int) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- {words} lines -->\n```python\n(.*?)^```", text, re.M | re.S)
    lines = [line for line in block.splitlines() if line.strip()]
    assert 0 < len(lines) <= most
    assert all(";" not in line and len(line) <= 100 for line in lines)
