"""What every object for Kubernetes is held to, wherever it comes from."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import typer

from wardround.cli import app

KUBERNETES = "1.32"
SECRETS = re.compile(r"token|secret|password|key", re.IGNORECASE)


def check_objects(objects: list[dict[str, Any]]) -> None:
    """Hold objects against the schemas of Kubernetes, strictly, and workloads against our rules."""
    for one in objects:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        assert one["kind"] not in ("Secret", "Role", "ClusterRole", "RoleBinding"), "no rights"
    denied = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in denied
    sets = [one for one in objects if one["kind"] == "StatefulSet"]
    assert sets
    for one in sets:
        check_pod(one["spec"]["template"]["spec"])
        labels = one["spec"]["template"]["metadata"]["labels"].items()
        assert one["spec"]["selector"]["matchLabels"].items() <= labels
        assert one["spec"]["replicas"] == 1, "a folder has one server or one daemon"


def check_pod(pod: dict[str, Any]) -> None:
    """Hold a pod to 'restricted' of the Pod Security Standards, and to what is ours beyond it."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"].get("runAsUser", 1) != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # Else the kubelet opens every private key to the group at each start, and they are refused.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["terminationGracePeriodSeconds"] >= 45, "the unit files' TimeoutStopSec"
    for volume in pod["volumes"]:
        assert {"emptyDir", "persistentVolumeClaim", "secret", "configMap"} & volume.keys()
    for container in [*pod["initContainers"], *pod["containers"]]:
        check_container(container)
    (main,) = pod["containers"]
    assert "livenessProbe" not in main, "a server that is not reached is no reason to kill a daemon"
    mounts = {mount["mountPath"]: mount for mount in main["volumeMounts"]}
    assert mounts.get("/data", {"readOnly": True})["readOnly"] is True
    assert "/tmp" in mounts


def check_container(container: dict[str, Any]) -> None:
    """Hold a container to no rights at all, a limit of memory, and commands that there are."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert ":" in container["image"].rpartition("/")[2], "a tag"
    assert not container["image"].endswith(":latest")
    assert container["resources"]["limits"]["memory"]
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    for variable in container.get("env", []):
        assert not SECRETS.search(variable["name"]), "'kubectl describe' shows the environment"
    (role,) = re.findall(r"wardround-(server|site)", container["image"])
    if container.get("command") == ["sh", "-c"]:
        (script,) = container["args"]
        test, words = script.split(" || exec ")
        assert test.startswith("test -e /wardround/")
        check_command(shlex.split(words.partition(" < ")[0]))
    else:
        assert "command" not in container
        check_command(["wardround", role, *container["args"]])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container:
            check_command(container[probe]["exec"]["command"])
            assert container[probe]["timeoutSeconds"] >= 10, "Python has to start"


def check_command(words: list[str]) -> None:
    """Hold a command against our own command line: each word of it is there."""
    assert words[0] == "wardround"
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        assert rest[0] in command.commands, words
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(
        words[-1], [word.replace("$", "") for word in rest], resilient_parsing=True
    )
    options = {name for one in command.params for name in one.opts}
    assert {word for word in rest if word.startswith("--")} <= options, words


def commands_in_containers(page: str) -> Iterator[list[str]]:
    """Yield each command of ours that a page has run in a container, as the container gets it."""
    for block in re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(re.split(r" [<>|]", line.removeprefix("(umask 077; "))[0])
            if words[:3] == ["docker", "compose", "run"]:
                service, *rest = [word for word in words[3:] if word not in ("--rm", "-T")]
                yield ["wardround", service.partition("-")[0], *rest]
            elif "wardround" in words and {"exec"} & set(words):
                yield words[words.index("wardround") :]


def page(name: str) -> str:
    """Return the text of a page in docs/how-to."""
    return (Path(__file__).resolve().parents[4] / "docs" / "how-to" / name).read_text("utf-8")
