"""``[study]``: what the study is called and what it learns."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from wardround.common.errors import known_names
from wardround.common.study.registry import TASKS
from wardround.common.study.sections.fields import Name, Section


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(known_names("task", name, TASKS))
    return name


Task = Annotated[str, AfterValidator(_known_task), Field(json_schema_extra={"enum": [*TASKS]})]


class StudySection(Section):
    """``[study]``: what the study is called and what it learns."""

    name: Name
    task: Task
    description: Annotated[str, StringConstraints(max_length=4_000)] = ""
