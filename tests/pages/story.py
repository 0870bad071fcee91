"""A page's commands, run one by one in a folder; what is left out at the end fails the test."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.pages.blocks import blocks_of
from tests.pages.told import CANNOT, ELSEWHERE, LANGUAGES
from tests.support.page_commands import FINE, Place


def untold(page: str) -> list[str]:
    """Return the parts of a page that no row of ``told.py`` excuses, in their order."""
    rows = [row for row in (*ELSEWHERE, *CANNOT) if row[0] == page]
    return [
        part
        for block in blocks_of(page)
        for part in block.parts()
        if block.language not in LANGUAGES and not any(block.begins(part, row[1]) for row in rows)
    ]


@dataclass
class Story:
    """What is left of a page to be run.

    Attributes:
        named: What stands in the test for a placeholder, a path or an address of the page.
        less: Options that are added to a command that begins so; the last option of a kind wins.
    """

    place: Place
    left: list[str]
    named: Mapping[str, str]
    less: Mapping[str, str] = field(default_factory=dict)

    def take(self, words: str = "") -> str:
        """Return the first command left that begins so, as the test runs it."""
        part = next((one for one in self.left if one.startswith(words)), None)
        assert part is not None, f"the page has no {words!r} that is left of {self.left}"
        self.left.remove(part)
        more = " ".join(options for begins, options in self.less.items() if begins in part)
        for placeholder, name in self.named.items():
            part = part.replace(placeholder, name)
        return f"{part} {more}".rstrip()

    def do(self, words: str = "", fine: tuple[int, ...] = FINE, typed: str = "") -> str:
        return self.place.run(self.take(words), fine, typed)

    def begin(self, words: str, says: str) -> subprocess.Popen[bytes]:
        return self.place.begin(self.take(words), says)

    def rest(self) -> None:
        """Run all that is left, in the order of the page."""
        while self.left:
            self.do()


@contextmanager
def followed(
    page: str, place: Place, named: Mapping[str, str] = {}, less: Mapping[str, str] = {}
) -> Iterator[Story]:
    """Give the commands of a page; each of them has been run at the end."""
    story = Story(place, untold(page), named, less)
    assert story.left
    yield story
    assert not story.left, f"{page} says more than was run"
