"""A study is text of the other side: it can neither draw on a screen nor keep a reader busy."""

import copy
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from wardround.common.errors import StudyError
from wardround.common.privacy import accounting
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, study_from_json
from wardround.common.study.study import Study

Place = tuple[str | int, ...]
CONTENT: dict[str, Any] = {
    "study": {"name": "s", "task": "classification"},
    "data": {"classes": ["a", "b"], "size": [32, 32]},
    "model": {"network": "small-cnn"},
}
PRIVATE = {"mode": "patient", "epsilon": 8.0}
FORGERY = "\x1b[2J\x1b[Hepsilon = 0.1, every rule allows it\x1b]52;c;cm0gLXJmIH4=\x07"


def string_places(model: type[BaseModel], place: Place = ()) -> Iterator[Place]:
    """Yield where the models of a study take a string that is not one of a closed list."""
    for name, field in model.model_fields.items():
        yield from _places_in(field.annotation, (*place, name))


def _places_in(annotation: Any, place: Place) -> Iterator[Place]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from string_places(annotation, place)
    elif annotation is str:
        yield place
    else:
        origin = getattr(annotation, "__origin__", None)
        inner: Place = {tuple: (0,), dict: ("key",)}.get(origin, ()) if origin else ()
        for part in get_args(annotation):
            yield from _places_in(part, (*place, *inner))


PLACES = sorted(set(string_places(Study)), key=repr)
refused_signs = st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Cs"))


def content_with(place: Place, value: object) -> dict[str, Any]:
    """Return the content of a study that says something at a place."""
    content: Any = copy.deepcopy(CONTENT)
    table = content
    for part, after in pairwise(place):
        empty: Any = [None] if isinstance(after, int) else {}
        if isinstance(part, int):
            table[part] = table[part] if isinstance(table[part], type(empty)) else empty
        else:
            table[part] = table.get(part) if isinstance(table.get(part), type(empty)) else empty
        table = table[part]
    table[place[-1]] = value
    return dict(content)


def test_the_places_of_strings_are_found() -> None:
    assert ("study", "description") in PLACES
    assert ("data", "covariates", 0, "values", 0) in PLACES
    assert ("federation", "personal", 0) in PLACES
    assert ("simulation", "options", "key") in PLACES
    assert len(PLACES) > 20


@given(
    place=st.sampled_from(PLACES),
    sign=refused_signs,
    before=st.sampled_from(["", "a", "plain "]),
    after=st.sampled_from(["", "b"]),
)
def test_no_string_of_a_study_holds_what_a_screen_obeys_or_hides(
    place: Place, sign: str, before: str, after: str
) -> None:
    if place == ("study", "description") and sign == "\n":
        return
    content = content_with(place, before + sign + after)
    with pytest.raises(StudyError, match="holds the character U") as refusal:
        parse_study(content)
    assert sign not in str(refusal.value)
    with pytest.raises(StudyError, match="holds the character U"):
        study_from_json(json.dumps(content))


@given(sign=refused_signs, section=st.sampled_from(["study", "federation", "simulation"]))
def test_no_key_of_a_study_does_either(sign: str, section: str) -> None:
    content = copy.deepcopy(CONTENT)
    content.setdefault(section, {})[f"a{sign}"] = 1
    with pytest.raises(StudyError) as refusal:
        parse_study(content)
    assert sign not in str(refusal.value)


def test_a_description_cannot_forge_the_page_that_explains_the_study() -> None:
    content = copy.deepcopy(CONTENT)
    content["study"]["description"] = FORGERY
    with pytest.raises(StudyError, match=r"study\.description holds the character U\+001B"):
        parse_study(content)


@given(text=st.text(st.characters(exclude_categories=("Cc", "Cf", "Zl", "Zp", "Cs")), max_size=300))
def test_what_is_explained_holds_no_control_character_but_the_newline(text: str) -> None:
    content = copy.deepcopy(CONTENT)
    content["study"]["description"] = text
    lines = explain_study(parse_study(content)).split("\n")
    assert all(line.isprintable() for line in lines)


def test_a_description_of_several_lines_is_quoted_and_cannot_pass_for_a_page_of_ours() -> None:
    forged = "Ours.\n\nWhat is promised to each training patient\n  - everything" + " " * 500 + "ok"
    content = copy.deepcopy(CONTENT)
    content["study"]["description"] = forged
    page = explain_study(parse_study(content))
    quoted = [
        line for line in page.split("\n") if "promised to each" in line or "- everything" in line
    ]
    assert quoted
    assert all(line.startswith("  | ") and len(line) < 80 for line in quoted)
    assert "\nWhat is promised" not in page


def test_text_of_any_language_stays_as_it_is() -> None:
    text = "Prüfung für 肺炎 und naïveté: Ελλάδα, Київ, हिन्दी, ١٢٣\nzweite Zeile"
    content = copy.deepcopy(CONTENT)
    content["study"]["description"] = text
    assert parse_study(content).study.description == text
    assert "Prüfung für 肺炎 und naïveté" in explain_study(parse_study(content))


def test_content_that_is_nested_without_end_is_refused_in_words() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(StudyError, match="nested"):
        parse_study({**CONTENT, "simulation": {"options": {"a": deep}}})
    with pytest.raises(StudyError, match=r"not JSON|nested"):
        study_from_json("[" * 100_000)


# --- Numbers ------------------------------------------------------------------------------------
def numbers_of(schema: object, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each number that a JSON schema takes, with what it says of it."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and "enum" not in schema:
            yield place, schema
        for key, value in schema.items():
            yield from numbers_of(value, f"{place}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from numbers_of(value, f"{place}/{number}")


def test_every_number_and_every_list_of_a_study_has_bounds_in_the_schema() -> None:
    found = list(numbers_of(Study.model_json_schema()))
    assert len(found) > 60
    unbounded = [
        place
        for place, said in found
        if not {"minimum", "exclusiveMinimum"} & set(said)
        or not {"maximum", "exclusiveMaximum"} & set(said)
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    "sections",
    [
        {"federation": {"rounds": 10**9}, "training": {"local_steps": 10**9}},
        {"privacy": {**PRIVATE, "epsilon": 9999, "delta": 1e-300}},
        {"privacy": {**PRIVATE, "sampling_rate": 1e-300}},
        {"federation": {"rounds": 100_000}, "training": {"local_steps": 1_000_000}},
        {"federation": {"rounds": 10**400}},
    ],
)
def test_numbers_that_would_keep_the_accountant_busy_are_refused_at_once(
    sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting, "_dp_accounting", _never)
    content = {
        **CONTENT,
        "model": {"network": "small-cnn", "normalisation": "group"},
        "privacy": PRIVATE,
        "evaluation": {"keep": "last"},
        **sections,
    }
    started = time.perf_counter()
    with pytest.raises(StudyError):
        parse_study(content)
    assert time.perf_counter() - started < 1


def test_a_received_study_is_read_without_any_accounting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "_dp_accounting", _never)
    accounting._noise.cache_clear()  # what another test has worked out
    content = {
        **CONTENT,
        "model": {"network": "small-cnn", "normalisation": "group"},
        "privacy": {**PRIVATE, "epsilon": 7.654},
        "evaluation": {"keep": "last"},
    }
    assert study_from_json(json.dumps(content)).privacy.epsilon == 7.654
    with pytest.raises(AssertionError, match="accounting"):
        parse_study(content)


def _never() -> None:
    msg = "accounting"
    raise AssertionError(msg)
