"""``[study]``: what the study is called and what it learns."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from wardround.common.errors import known_names
from wardround.common.study.registry import TASKS
from wardround.common.study.sections.fields import Hash, Name, Section


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(known_names("task", name, TASKS))
    return name


Task = Annotated[str, AfterValidator(_known_task), Field(json_schema_extra={"enum": [*TASKS]})]


class Repeat(Section):
    """The study whose rounds this one trains again, because somebody left it.

    Attributes:
        parent: Its digest.
        request: SHA-256 of the signed request to leave it, so that no two repeats are one study.
        after_round: The last of its rounds that is kept; 0 where all are trained again.
        without: What left it: a hospital, or patients of one. Nobody is named: hospitals are not
            told of each other.
    """

    parent: Hash
    request: Hash
    after_round: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    without: Literal["site", "patients"] = "site"


class StudySection(Section):
    """``[study]``: what the study is called and what it learns."""

    name: Name
    task: Task
    description: Annotated[str, StringConstraints(max_length=4_000)] = ""
    repeats: Repeat | None = None
