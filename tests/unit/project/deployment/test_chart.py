"""The Helm chart: its values hold to its schema, and Kubernetes takes what its templates give.

There is no Helm here. The templates keep to Go's own functions, and 'make chart' renders them with
a build of Go's text/template for Node; without that the rendering is skipped.
"""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
CHART = ROOT / "packaging" / "helm" / "wardround"
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
ENGINE = ROOT / ".venv-node/node_modules/@evertdespiegeleer/go-template/dist"
WASM = "86610667bcbf228bcd0532d4e30a153667839df3ae01b1c3346138f5cf8f6819"
# Words of Go's own text/template; 'include', 'toYaml' and the like are Helm's.
WORDS = {"if", "with", "range", "else", "end", "or", "and", "not", "eq", "ne", "printf", "len"}
SITE = {"site": {**VALUES["site"], "enabled": True}}
SERVER = {"server": {**VALUES["server"], "enabled": True}}
CASES: dict[str, dict[str, Any]] = {
    "site": SITE,
    "server": SERVER,
    "site on OpenShift with GPUs behind a proxy": {
        "site": {**SITE["site"], "gpus": 2, "httpsProxy": "http://proxy.example:3128"},
        "account": {"user": "", "group": ""},
        "storage": {"size": "1Ti", "className": "fast"},
    },
    "server for known addresses": {
        "server": {**SERVER["server"], "serviceType": "LoadBalancer", "from": "192.0.2.0/24"}
    },
}


def paths(tree: object, before: str = "") -> set[str]:
    if not isinstance(tree, dict):
        return {before}
    return {path for key, part in tree.items() for path in paths(part, f"{before}.{key}")}


@pytest.mark.parametrize("case", CASES)
def test_the_values_of_a_release_hold_to_the_schema(case: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate({**VALUES, **CASES[case]}, SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {},  # neither
        {**SITE, **SERVER},
        {"site": {**SITE["site"], "token": "wardround-AQ7"}},
        {"site": {**SITE["site"], "gpus": -1}},
        {"site": {**SITE["site"], "server": {"cidr": "fl.example.org", "port": 8443}}},
        {"server": {**SERVER["server"], "publicName": '" ; rm -rf / #'}},
        {"server": {**SERVER["server"], "memory": "4Gi\n      hostNetwork: true"}},
        {**SITE, "account": {"user": 0, "group": 10001}},
        {**SITE, "image": {**VALUES["image"], "registry": "a b"}},
    ],
)
def test_values_that_would_not_give_a_safe_release_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, **wrong}, SCHEMA)


def test_the_templates_use_every_value_and_no_function_of_helms_own() -> None:
    used: set[str] = set()
    for template in TEMPLATES:
        for action in re.findall(r"\{\{-?(.*?)-?\}\}", template.read_text("utf-8")):
            words = set(re.findall(r"(?<![.\w])[a-zA-Z]+", re.sub(r'"[^"]*"', "", action)))
            assert words <= WORDS, action
            used |= set(re.findall(r"\.Values(\.[\w.]+)", action))
    assert used == paths(VALUES)


def render(changes: dict[str, Any]) -> list[dict[str, Any]]:
    node = shutil.which("node")
    if node is None or not (ENGINE / "main.wasm").is_file():
        pytest.skip("nothing here renders Go templates: make chart, where there is Node")
    digest = hashlib.sha256((ENGINE / "main.wasm").read_bytes()).hexdigest()
    assert digest == WASM, "another build of the template engine than the one that was looked at"
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    given = {
        "templates": [template.read_text("utf-8") for template in TEMPLATES],
        "values": {
            "Values": {**VALUES, **changes},
            "Release": {"Name": "north", "Namespace": "wardround"},
            "Chart": {"AppVersion": chart["appVersion"], "Name": chart["name"]},
        },
    }
    done = subprocess.run(
        [node, Path(__file__).with_name("render_chart.mjs"), ENGINE / "main.js"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


@pytest.mark.parametrize("case", CASES)
def test_what_the_chart_gives_is_what_kubernetes_takes(case: str) -> None:
    from tests.unit.project.deployment.workloads import check_objects

    objects = render(CASES[case])
    kinds = [one["kind"] for one in objects]
    assert kinds.count("StatefulSet") == 1
    assert kinds.count("NetworkPolicy") == (3 if "site" in CASES[case] else 2)
    check_objects(objects)
    text = yaml.safe_dump_all(objects)
    assert ("nvidia.com/gpu: 2" in text) == ("GPU" in case)
    assert ("runAsUser" in text) == ("OpenShift" not in case)


def test_the_chart_and_this_release_have_one_version() -> None:
    import wardround

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == wardround.__version__
