"""The page that compares says of Wardround what the code can do today, and when it was read."""

import re
from pathlib import Path

import pytest

from wardround.common.study.sections.federation import FederationSection

PAGE = Path(__file__).resolve().parents[4] / "docs" / "concepts" / "comparison.md"
TEXT = PAGE.read_text(encoding="utf-8")
# A row that says "no" of Wardround, and the key of a study with which it can.
KEYS = {"Secure aggregation": "secure_aggregation", "Asynchronous training": "buffer_size"}


@pytest.mark.parametrize("row", KEYS)
def test_what_a_study_can_ask_for_is_not_denied(row: str) -> None:
    assert KEYS[row] in FederationSection.model_fields
    said = re.search(rf"^\| {row} \| ([^|]*) \|", TEXT, re.MULTILINE)
    assert said is not None
    assert said[1].startswith("yes")


def test_the_page_says_when_and_in_which_versions_the_others_were_read() -> None:
    assert re.search(r"in\s+(\w+)\s+20\d\d, in these versions", TEXT)
    for name in ("NVIDIA FLARE", "Flower", "FL4Health", "Fed-BioMed"):
        assert re.search(rf"^\| {name} \| \d.* \| .*20\d\d", TEXT, re.MULTILINE), name
