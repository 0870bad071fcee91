"""Which versions of Flower are allowed, and that no test that touches Flower is left out of one."""

import ast
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from wardround.common.flower.environment import INSTALL_FLOWER, TESTED_FLOWER

ROOT = Path(__file__).resolve().parents[3]
LISTED = [
    line
    for line in (ROOT / "tests/flower/touching.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
_LEFT_OUT = "tests/attacks/"  # touching.txt says why


def modules(tree: Path) -> dict[str, set[str]]:
    """Return what each Python file below a folder imports, by its dotted name."""
    found = {}
    for path in sorted(tree.rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
            elif isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
        found[".".join(path.relative_to(tree.parent).with_suffix("").parts)] = names
    return found


def touching(imports: dict[str, set[str]]) -> set[str]:
    """Return the modules that import Flower, or one that does."""
    found = {
        name
        for name, names in imports.items()
        if any(re.match(r"(flwr|wardround\.common\.flower)(\.|$)", one) for one in names)
    }
    while more := {name for name, names in imports.items() if names & found} - found:
        found |= more
    return found


def is_listed(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in LISTED)


def test_every_test_that_touches_flower_is_run_on_each_flower() -> None:
    found = {f"{name.replace('.', '/')}.py" for name in touching(modules(ROOT / "tests"))}
    tests = {path for path in found if Path(path).name.startswith("test_")}
    assert len(tests) > 50
    left_out = {path for path in tests if not is_listed(path) and not path.startswith(_LEFT_OUT)}
    # What tests/unit/project looks at is this project's texts and names, whatever is installed.
    left_out = {path for path in left_out if not path.startswith("tests/unit/project/")}
    assert not left_out, "add them to tests/flower/touching.txt"


def test_what_is_listed_is_there() -> None:
    assert [path for path in LISTED if not (ROOT / path).exists()] == []
    assert sorted(set(LISTED)) == sorted(LISTED)


def test_a_test_that_touches_flower_through_a_helper_is_found() -> None:
    imports = {"tests.a": {"tests.b"}, "tests.b": {"tests.c"}, "tests.c": {"flwr.app"}}
    assert touching({**imports, "tests.d": {"flwrs", "wardround.common.flowery"}}) == set(imports)


def test_the_versions_that_are_allowed_are_those_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (ours,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "flwr"]
    (ray,) = map(Requirement, project["optional-dependencies"]["ray"])
    assert ours.specifier == ray.specifier
    assert f"flwr{','.join(sorted(map(str, ours.specifier), reverse=True))}" in INSTALL_FLOWER
    minors = {f"1.{minor}" for minor in range(100) if ours.specifier.contains(f"1.{minor}.0")}
    assert minors == set(TESTED_FLOWER)
    (made,) = re.findall(r"^FLOWERS \?= (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert {one.rpartition(".")[0] for one in made.split()} == minors
    (pinned,) = re.findall(r"^flwr==(.*)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert pinned in made.split()
