"""A field of a card or data sheet: what a tool knows is filled, the rest says who fills it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wardround.common.models.documents.checklists import answered_by
from wardround.common.runtime.markdown import inline

KnownBy = Literal["tool", "person"]


@dataclass(frozen=True, slots=True)
class DocumentField:
    """One question and its answer.

    Attributes:
        key: Its name in the JSON, and in the table of checklists.
        section: The heading that it stands under.
        title: The question.
        answer: Sentences; empty where a person must answer.
        filled_by: Who that is; "" where a tool has answered.
    """

    key: str
    section: str
    title: str
    answer: tuple[str, ...] = ()
    filled_by: str = ""

    @property
    def known_by(self) -> KnownBy:
        """Who answers it."""
        return "person" if self.filled_by else "tool"

    @property
    def items(self) -> tuple[str, ...]:
        """The items of checklists that it answers."""
        return answered_by(self.key)

    @property
    def is_empty(self) -> bool:
        """Whether a tool should have answered and has not."""
        return self.known_by == "tool" and not any(text.strip() for text in self.answer)


def told(key: str, section: str, title: str, answer: str | Iterable[str]) -> DocumentField:
    """Return a field that a tool answers."""
    sentences = (answer,) if isinstance(answer, str) else tuple(answer)
    return DocumentField(key, section, title, sentences)


def asked(key: str, section: str, title: str, filled_by: str) -> DocumentField:
    """Return a field that a person must answer."""
    return DocumentField(key, section, title, (), filled_by)


def field_lines(fields: Sequence[DocumentField]) -> Iterator[str]:
    """Yield the lines of a document, Markdown."""
    for section in dict.fromkeys(one.section for one in fields):
        yield f"## {inline(section)}"
        yield ""
        for one in fields:
            if one.section == section:
                yield from _lines(one)
        yield ""


def checklist_lines(fields: Sequence[DocumentField]) -> Iterator[str]:
    """Yield which items of checklists a document answers, and where."""
    yield "## Checklists"
    yield ""
    for one in fields:
        if one.items:
            who = f" (to be filled by: {one.filled_by})" if one.filled_by else ""
            items = inline("; ".join(one.items))
            yield f"- {items}: {inline(one.section)}, {inline(one.title)}{who}"
    yield ""


def _lines(field: DocumentField) -> Iterator[str]:
    title = f"- **{inline(field.title)}**:"
    if field.filled_by:
        yield f"{title} to be filled by: {inline(field.filled_by)}"
    elif len(field.answer) == 1:
        yield f"{title} {inline(field.answer[0])}"
    else:
        yield title
        yield from (f"  - {inline(sentence)}" for sentence in field.answer)
