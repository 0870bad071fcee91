"""Pages of keys, from the models that check the files: types, defaults, limits and meaning.

Used by ``docs/generate.py``. What a key means is its line under ``Attributes`` in the model's
docstring; of a study it is the sentence in ``common/study/explain/schema.py``.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

_HEAD = "| key | type | default | limits | |\n|---|---|---|---|---|\n"
_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)
_LIMITS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("minItems", "{} or more"),
    ("maxItems", "up to {}"),
    ("minLength", "{} characters or more"),
    ("maxLength", "up to {} characters"),
    ("maxProperties", "up to {}"),
)


def study_keys_page() -> str:
    """Return the page of every key of a study file."""
    from wardround.common.study.explain.schema import study_schema

    schema = study_schema()
    lines = [
        "# Every key of a study\n\n"
        "Written by `python docs/generate.py` from `wardround study schema`. What the keys "
        "mean together stands in [the study file](study-file.md).\n"
    ]
    for name, content in schema["properties"].items():
        if "$ref" not in content and "allOf" not in content:
            lines.append(
                f"\n## Before the first table\n\n{_HEAD}"
                f"{_row(name, content, False, content['description'])}"
            )
            continue
        lines += _tables(schema["$defs"], _reached(content), f"[{name}]", set())
    return "".join(lines)


def _tables(models: dict[str, Any], model: str, title: str, seen: set[str]) -> Iterator[str]:
    table = models[model]
    needed = table.get("required", ())
    yield f"\n## `{title}`\n\n{_sentence(table.get('description', ''))}\n\n{_HEAD}"
    inner = []
    for key, content in table["properties"].items():
        yield _row(key, content, key in needed, content.get("description", ""))
        for reached in {one for one in _all_reached(content) if "properties" in models[one]}:
            name = title.strip("[]") + f".{key}"
            inner.append((reached, f"[[{name}]]" if "array" in str(content) else f"[{name}]"))
    for reached, name in inner:
        if reached not in seen:
            yield from _tables(models, reached, name, {*seen, reached})


def settings_page() -> str:
    """Return the page of every key of the files of a site and of a server."""
    from wardround.client.clinic.pacs.settings import PacsFile
    from wardround.client.policy.policy import Policy
    from wardround.client.site.folder import SiteFile
    from wardround.server.settings import ServerFile

    lines = [
        "# Every key of a site's and a server's files\n\n"
        "Written by `python docs/generate.py` from the models that check the files. An unknown key "
        "is refused. What they mean together: [the site folder](site-folder.md), "
        "[the site policy](site-policy.md), [the picture archive](../how-to/pacs.md), "
        "[operating a server](../how-to/operate-a-server.md).\n"
    ]
    for file, model in (
        ("site.toml", SiteFile),
        ("policy.toml", Policy),
        ("pacs.toml", PacsFile),
        ("server.toml", ServerFile),
    ):
        lines += _model_tables(model, f"`{file}`")
    return "".join(lines)


def _model_tables(model: type[BaseModel], title: str) -> Iterator[str]:
    schema = model.model_json_schema()
    words = meanings(model)
    yield f"\n## {title}\n\n{_HEAD}"
    inner: dict[str, type[BaseModel]] = {}
    for key, content in schema["properties"].items():
        needed = key in schema.get("required", ())
        yield _row(key, content, needed, words.get(key, ""))
        for reached in _models_in(model.model_fields[key].annotation):
            name = f"`{key}`" if "`[" in title else f"`[{key}]`"
            inner.setdefault(f"{title}, {name}", reached)
    for name, reached in inner.items():
        yield from _model_tables(reached, name)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what a model's docstring says of each key; several may share a line."""
    from wardround.common.study.explain.schema import KEYS

    found = {key: " ".join(text.split()) for key, text in _ATTRIBUTE.findall(model.__doc__ or "")}
    plain = {key: re.sub(r":\w+:`[\w.]*?(\w+)`", r"\1", text) for key, text in found.items()}
    return {**KEYS.get(model.__name__, {}), **plain}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in getattr(annotation, "__args__", ()):
        yield from _models_in(one)


def _row(key: str, content: dict[str, Any], needed: bool, meaning: str) -> str:
    default = "needed" if needed else _shown(content.get("default"))
    limits = ", ".join(dict.fromkeys(_limits(content)))
    cells = (f"`{key}`", _type(content), default, limits, meaning.replace("``", "`"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _shown(value: object) -> str:
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, list) and len(value) > 4:
        return "all that are known"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("'", '"')


def _type(content: dict[str, Any]) -> str:
    """Return a key's type in words."""
    if "enum" in content or "const" in content:
        return ", ".join(f"`{one}`" for one in content.get("enum", [content.get("const")]))
    if choices := [one for one in content.get("anyOf", ()) if one.get("type") != "null"]:
        return " or ".join(dict.fromkeys(map(_type, choices)))
    if "$ref" in content or "allOf" in content:
        return "table"
    if content.get("type") == "array":
        inner = content.get("items") or next(iter(content.get("prefixItems", ())), {})
        held = _type(inner) if inner else "values"
        return f"list of {held}" if "`" in held else f"list of {held}s".replace("ys", "ies")
    if content.get("type") == "object":
        return "table of names"
    names = {"integer": "whole number", "boolean": "true or false", "string": "text"}
    return names.get(content.get("type", ""), content.get("type", "any"))


def _limits(content: dict[str, Any]) -> Iterator[str]:
    for part in [content, *content.get("anyOf", ())]:
        if part.get("minItems") == part.get("maxItems") is not None:
            yield f"exactly {part['minItems']}"
            part = {key: held for key, held in part.items() if key not in ("minItems", "maxItems")}
        yield from (words.format(_number(part[key])) for key, words in _LIMITS if key in part)
        if inner := part.get("items"):
            yield from (f"each {words}" for words in _limits(inner))


def _sentence(text: str) -> str:
    """Return what a section is for, without its name in front."""
    words = re.sub(r"^\[[\w.]+\]: ", "", text.strip())
    return words[:1].upper() + words[1:]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _reached(content: dict[str, Any]) -> str:
    return str(content.get("$ref") or content["allOf"][0]["$ref"]).rpartition("/")[2]


def _all_reached(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if "$ref" in content:
            yield content["$ref"].rpartition("/")[2]
        for one in content.values():
            yield from _all_reached(one)
    elif isinstance(content, list):
        for one in content:
            yield from _all_reached(one)
