"""The code blocks of README.md and docs, and the single commands that stand in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMANDS = ("", "sh", "bash", "console")  # of a block that a shell reads
_BLOCK = re.compile(
    r"^([ >]*)(```+|~~~+)([\w+-]*)[^\n]*\n(.*?)^\1\2[ \t]*$", re.DOTALL | re.MULTILINE
)
_COMMENT = re.compile(r"(^|\s+)#\s.*")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: From the root of the repository.
        line: On which it opens, from 1.
        language: As its fence says; "" is a shell's.
    """

    page: str
    line: int
    language: str
    text: str

    def parts(self) -> list[str]:
        """Return the commands of a shell's block, a line each; of any other all of it."""
        if self.language not in COMMANDS or "$run " in self.text or "python -c" in self.text:
            return [self.text]
        lines = re.sub(r"\s*\\\n\s*", " ", self.text).splitlines()
        bare = (_COMMENT.sub("", line).strip() for line in lines)
        return [line for line in bare if line]

    def begins(self, part: str, words: str) -> bool:
        """Tell whether a row means this part: by its first words, or by its "```language"."""
        if words.startswith("```"):
            return self.language == words.removeprefix("```")
        return part.startswith(words)


def pages() -> list[Path]:
    """Return every page that people read; what is generated from the code stands elsewhere."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    return [*found, *sorted(DOCS.rglob("*.md"))]


def blocks_of(page: Path | str) -> Iterator[Block]:
    """Yield a page's blocks in their order, indented ones and quoted ones too."""
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        lines = (line.removeprefix(match[1]) for line in match[4].splitlines(keepends=True))
        number = text.count("\n", 0, match.start()) + 1
        yield Block(path.relative_to(ROOT).as_posix(), number, match[3], "".join(lines))
