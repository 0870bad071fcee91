"""One namespace, four folders at the root, and links that make them importable."""

import re
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("client", "common", "server", "simulations")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_linked_by_a_relative_link(folder: str) -> None:
    link = ROOT / "src" / "wardround" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / ".." / folder
    assert link.resolve() == (ROOT / folder).resolve()
    assert (ROOT / folder / "__init__.py").exists()


def test_src_holds_the_front_door_and_the_links_alone() -> None:
    held = {path.name for path in (ROOT / "src" / "wardround").iterdir()} - {"__pycache__"}
    doors = {"cli.py", "commands", "data.py", "privacy.py", "strategies.py"}
    assert held == {"__init__.py", "py.typed", *doors, *FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_project_file_names_each_folder(folder: str) -> None:
    targets = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    assert folder in targets["wheel"]["only-include"]
    assert folder in targets["sdist"]["only-include"]
    assert targets["wheel"]["sources"][folder] == f"wardround/{folder}"
    assert folder in PYPROJECT["tool"]["coverage"]["run"]["source"]


def test_the_version_is_said_once() -> None:
    import wardround

    assert PYPROJECT["project"]["version"] == wardround.__version__


def test_every_import_goes_through_the_namespace() -> None:
    bare = re.compile(rf"^\s*(from|import) ({'|'.join(FOLDERS)})\b", re.MULTILINE)
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src" / "wardround").glob("*.py")]
    assert len(files) > 50
    guilty = [str(p.relative_to(ROOT)) for p in files if bare.search(p.read_text("utf-8"))]
    assert guilty == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_of_code_is_a_package(folder: str) -> None:
    with_code = {path.parent for path in (ROOT / folder).rglob("*.py")}
    missing = [str(f.relative_to(ROOT)) for f in with_code if not (f / "__init__.py").exists()]
    assert missing == []


@pytest.mark.parametrize("module", ["wardround.client.app", "wardround.simulations"])
def test_a_deprecation_that_our_own_line_causes_fails(module: str) -> None:
    """So that the next version of a dependency is no surprise; a dependency's own do not."""
    line = compile("warnings.warn('old', DeprecationWarning)", "ours.py", "exec")
    with pytest.raises(DeprecationWarning, match="old"):
        exec(line, {"__name__": module, "warnings": warnings})
    with pytest.warns(DeprecationWarning, match="old"):
        exec(line, {"__name__": "torch.somewhere", "warnings": warnings})
