"""The public names: there, of one mind with the type checkers, and imported when they are used."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

PACKAGES = (
    "wardround",
    "wardround.client",
    "wardround.common",
    "wardround.server",
    "wardround.simulations",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_can_be_imported_and_is_listed(name: str) -> None:
    package = importlib.import_module(name)
    assert len(set(package.__all__)) == len(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None
        assert public in dir(package)


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_see_the_same_names_from_the_same_modules(name: str) -> None:
    package = importlib.import_module(name)
    tree = ast.parse(inspect.getsource(package))
    declared = {
        alias.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert {*declared} == {*package.__all__} - {"__version__"}
    for public, module in declared.items():
        assert getattr(package, public) is getattr(importlib.import_module(str(module)), public)


@pytest.mark.parametrize("name", PACKAGES)
def test_an_unknown_name_is_an_ordinary_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'simulat'"):
        importlib.import_module(name).simulat  # noqa: B018 # reading it is the test


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_a_package_imports_nothing_of_weight(name: str) -> None:
    code = f"import {name}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"torch", "numpy", "monai", "flwr", "pydantic", "typer", "pandas"})


def test_importing_wardround_takes_milliseconds() -> None:
    code = (
        "import time; began = time.perf_counter(); import wardround as wr; "
        "print(time.perf_counter() - began, wr.__version__)"
    )
    tries = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, check=True
            ).stdout.split()[0]
        )
        for _ in range(3)
    ]
    assert min(tries) < 0.1


ROOMS = ("wardround", "wardround.data", "wardround.privacy", "wardround.strategies")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_and_class_is_documented_and_typed(room: str) -> None:
    package = importlib.import_module(room)
    assert package.__doc__
    for name in package.__all__:
        public = getattr(package, name)
        if inspect.isfunction(public):
            _require_documented(public)
            signature = inspect.signature(public)
            assert not signature.parameters or "Raises:" in str(public.__doc__), name
        elif inspect.isclass(public):
            assert public.__doc__, name
            for method, function in vars(public).items():
                held = function.fget if isinstance(function, property) else function
                ours = str(getattr(held, "__module__", "")).startswith("wardround")
                if ours and inspect.isfunction(held) and not method.startswith("_"):
                    _require_documented(held)


def _require_documented(function: object) -> None:
    name = f"{function.__module__}.{function.__qualname__}"  # type: ignore[attr-defined]
    assert function.__doc__, name
    signature = inspect.signature(function)  # type: ignore[arg-type]
    assert signature.return_annotation is not inspect.Signature.empty, name
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    assert all(one.annotation is not one.empty for one in parameters), name


def test_the_keys_that_a_study_takes_in_python_are_those_of_the_study_file() -> None:
    from wardround.common.study.study import Study
    from wardround.simulations.notebook.studies import HOMES
    from wardround.simulations.notebook.study_keys import StudyChanges

    named = {*StudyChanges.__annotations__}
    assert named == {*HOMES, *Study.model_fields} - {"name", "task"}
