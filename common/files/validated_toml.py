"""What is wrong with a study file, said in one paragraph."""

from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def explain_problems(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Return every problem of a study as sentences: fact, value, remedy.

    Args:
        error: What pydantic found.
        model: The model that refused, whose keys are suggested.
        origin: What the messages call the file.
    """
    sentences = [_sentence(problem, model) for problem in error.errors(include_url=False)]
    return f"{origin} is refused: " + " ".join(dict.fromkeys(sentences))


def _sentence(problem: ErrorDetails, model: type[BaseModel]) -> str:
    place = tuple(part for part in problem["loc"] if not str(part).startswith(("literal", "tuple")))
    name = _dotted(place)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(place, name, model)
    if problem["type"] == "missing":
        return f"{name} is missing: add it."
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    expected = str(problem["msg"])[0].lower() + str(problem["msg"])[1:]
    return f"{name} = {problem['input']!r} cannot be used: {expected}."


def _dotted(place: tuple[str | int, ...]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _unknown_key(place: tuple[str | int, ...], name: str, model: type[BaseModel]) -> str:
    known = sorted(_keys_at(place[:-1], model))
    close = get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}."
    return f"{name} is not a key of a study: {hint}"


def _keys_at(place: tuple[str | int, ...], model: type[BaseModel]) -> set[str]:
    for part in place:
        if isinstance(part, int) or part not in model.model_fields:
            continue  # a place in a list, or a free name in a table
        annotation = model.model_fields[part].annotation
        candidates = (annotation, *get_args(annotation))
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return set()
        model = models[0]
    return set(model.model_fields)
