import re
from importlib import resources
from pathlib import Path

CHARTS = Path(str(resources.files("wardround.common.html.charts")))


def test_no_rule_of_the_page_is_meant_for_something_else_and_moves_a_part_of_a_chart() -> None:
    """The lower edge of every chart stood at half its height: ``.edge`` was a letter's place."""
    page = (CHARTS.parent / "page.css").read_text(encoding="utf-8")
    bare = set(re.findall(r"^\s*\.([a-z]+)(?:\.[a-z]+)*\s*\{", page, re.MULTILINE))
    drawn = {
        word
        for file in CHARTS.glob("*.py")
        if file.stem != "figure"  # what stands around a picture is the page's
        for words in re.findall(r'class_?="([a-z ]+)"', file.read_text(encoding="utf-8"))
        for word in words.split()
    }
    assert {"edge", "rule", "stroke", "upright"} <= drawn
    assert not bare & drawn
