"""Every code block of README.md and docs is run by a test, or why it is not is written down."""

import re

import pytest
from tests.pages.blocks import ROOT, Block, blocks_of, pages
from tests.pages.told import CANNOT, ELSEWHERE, LANGUAGES, STORIES

BLOCKS = [block for page in pages() for block in blocks_of(page.relative_to(ROOT))]


def rows_for(block: Block, part: str) -> list[tuple[str, str, str]]:
    rows = [row for row in (*ELSEWHERE, *CANNOT) if row[0] == block.page]
    return [row for row in rows if block.begins(part, row[1])]


def test_every_block_of_a_page_is_run_or_says_why_not() -> None:
    """A new one needs a page in STORIES or a row in ``tests/pages/told.py``."""
    assert len(BLOCKS) > 150
    forgotten = [
        f"{block.page}:{block.line}: {part}"
        for block in BLOCKS
        for part in block.parts()
        if block.language not in LANGUAGES
        and block.page not in STORIES
        and not rows_for(block, part)
    ]
    assert not forgotten


def test_no_row_is_left_of_a_block_that_has_gone() -> None:
    used = {row for block in BLOCKS for part in block.parts() for row in rows_for(block, part)}
    assert not {*ELSEWHERE, *CANNOT} - used
    assert {block.page for block in BLOCKS} >= {*STORIES}
    assert all(len(reason) > 10 for _, _, reason in CANNOT)


@pytest.mark.parametrize("test", sorted({*(row[2] for row in ELSEWHERE)}))
def test_what_is_said_to_run_a_block_is_there(test: str) -> None:
    path, _, function = test.partition("::")
    source = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {function}(" in source if function else "def test_" in source


@pytest.mark.parametrize("page", STORIES)
def test_a_story_takes_its_page(page: str) -> None:
    path, _, function = STORIES[page].partition("::")
    source = (ROOT / "tests" / "pages" / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(", source, re.MULTILINE)
    assert page in source or page.replace("docs/how-to", "{_HOW_TO}") in source
    assert "followed(" in source


def test_a_block_that_nobody_runs_is_found() -> None:
    new = Block("docs/how-to/pacs.md", 1, "python", "print('new')\n")
    assert not rows_for(new, new.text)
    command = Block("docs/how-to/upgrade.md", 1, "", "wardround new  # comment\n")
    assert command.parts() == ["wardround new"]
    assert not rows_for(command, "wardround new")
    assert "docs/how-to/upgrade.md" not in STORIES
