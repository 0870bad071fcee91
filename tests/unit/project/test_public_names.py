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
    assert loaded.isdisjoint({"torch", "numpy", "monai", "flwr", "pydantic", "typer"})


def test_every_public_function_and_class_is_documented_and_typed() -> None:
    package = importlib.import_module("wardround")
    for name in package.__all__:
        public = getattr(package, name)
        if inspect.isfunction(public):
            assert "Raises:" in str(public.__doc__)
            signature = inspect.signature(public)
            assert signature.return_annotation is not inspect.Signature.empty
            assert all(p.annotation is not p.empty for p in signature.parameters.values())
        elif inspect.isclass(public):
            assert public.__doc__
