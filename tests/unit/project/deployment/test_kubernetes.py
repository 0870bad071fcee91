"""The manifests for Kubernetes: rendered as 'kubectl apply -k' does, held to their promises."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.project.deployment.workloads import check_objects

FOLDER = Path(__file__).resolve().parents[4] / "packaging" / "kubernetes"
RENDERED = ("server", "site", "overlays/gpu", "overlays/openshift", "overlays/one-cluster")
SITE_LABELS = {"app.kubernetes.io/name": "wardround-site"}
SERVER_LABELS = {"app.kubernetes.io/name": "wardround-server"}


@cache
def render(name: str) -> tuple[dict[str, Any], ...]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: it renders the manifests")
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def found(name: str, kind: str, title: str = "") -> dict[str, Any]:
    (one,) = [
        one
        for one in render(name)
        if one["kind"] == kind and title in ("", one["metadata"]["name"])
    ]
    return one


def container(name: str, which: str = "containers") -> dict[str, Any]:
    (one,) = found(name, "StatefulSet")["spec"]["template"]["spec"][which]
    assert isinstance(one, dict)
    return one


@pytest.mark.parametrize("name", RENDERED)
def test_kubernetes_takes_every_object_and_no_pod_has_a_right(name: str) -> None:
    check_objects(list(render(name)))
    for space in (one for one in render(name) if one["kind"] == "Namespace"):
        labels = space["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_file_of_the_manifests_is_left_out() -> None:
    folders = {str(path.parent.relative_to(FOLDER)) for path in FOLDER.rglob("kustomization.yaml")}
    assert folders == set(RENDERED)
    for path in FOLDER.rglob("*.yaml"):
        if path.name != "kustomization.yaml":
            assert path.name in (path.parent / "kustomization.yaml").read_text("utf-8")


def test_a_site_hears_nobody_and_reaches_names_and_its_server() -> None:
    policies = [one["spec"] for one in render("site") if one["kind"] == "NetworkPolicy"]
    assert not [rule for one in policies for rule in one.get("ingress", [])]
    ways = [rule for one in policies for rule in one.get("egress", [])]
    ports = sorted(port["port"] for way in ways for port in way["ports"])
    assert ports == [53, 53, 8443]
    assert all(way["to"] for way in ways), "an empty list would be everybody"
    assert all(one["podSelector"] in ({}, {"matchLabels": SITE_LABELS}) for one in policies)


def test_a_server_calls_nobody_and_hears_on_one_port() -> None:
    policies = [one["spec"] for one in render("server") if one["kind"] == "NetworkPolicy"]
    assert not [rule for one in policies for rule in one.get("egress", [])]
    rules = [rule for one in policies for rule in one.get("ingress", [])]
    assert rules == [{"ports": [{"port": 8443, "protocol": "TCP"}]}]
    (port,) = found("server", "Service")["spec"]["ports"]
    (listens,) = container("server")["ports"]
    assert (port["targetPort"], port["port"]) == (listens["name"], listens["containerPort"])
    budget = found("server", "PodDisruptionBudget")["spec"]
    assert budget == {"minAvailable": 1, "selector": {"matchLabels": SERVER_LABELS}}


def test_in_one_cluster_the_site_reaches_the_server_and_nothing_else_there() -> None:
    spec = found("overlays/one-cluster", "NetworkPolicy", "reach-the-server")["spec"]
    (way,) = spec["egress"]
    (to,) = way["to"]
    assert to["podSelector"]["matchLabels"] == SERVER_LABELS
    assert to["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "wardround-server"
    }


def test_the_token_comes_as_a_file_is_optional_and_only_the_join_sees_it() -> None:
    pod = found("site", "StatefulSet")["spec"]["template"]["spec"]
    (secret,) = [one["secret"] for one in pod["volumes"] if "secret" in one]
    assert secret["optional"] is True
    assert secret["defaultMode"] & 0o007 == 0
    assert "invitation" in [
        one["name"] for one in container("site", "initContainers")["volumeMounts"]
    ]
    assert "invitation" not in [one["name"] for one in container("site")["volumeMounts"]]


def test_the_images_of_patients_can_be_read_alone_and_only_by_the_daemon() -> None:
    pod = found("site", "StatefulSet")["spec"]["template"]["spec"]
    (claim,) = [one["persistentVolumeClaim"] for one in pod["volumes"] if one["name"] == "images"]
    assert claim["readOnly"] is True
    assert "images" not in [
        one["name"] for one in container("site", "initContainers")["volumeMounts"]
    ]


def test_the_overlays_change_what_they_say_and_nothing_else() -> None:
    assert container("overlays/gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container("overlays/gpu")["image"].endswith("-cuda")
    given = found("overlays/openshift", "StatefulSet")["spec"]["template"]["spec"][
        "securityContext"
    ]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & given.keys()
    assert given["runAsNonRoot"] is True


@pytest.mark.parametrize("role", ["server", "site"])
def test_places_are_those_of_the_images(role: str) -> None:
    image = (FOLDER.parent / f"Dockerfile.{role}").read_text("utf-8")
    assert 'VOLUME ["/wardround"]' in image
    assert container(role)["args"] == ["start", f"/wardround/{role}"]
    assert f'CMD ["start", "/wardround/{role}"]' in image
    pod = found(role, "StatefulSet")["spec"]["template"]["spec"]
    account = re_account(image)
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == account


def re_account(image: str) -> int:
    (line,) = [line for line in image.splitlines() if line.startswith("USER ")]
    return int(line.removeprefix("USER ").split(":")[0])
