"""A hospital with its own policy, asked as a server asks it."""

import os
import random
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict

from wardround.client.app import app, open_session
from wardround.client.policy.policy import POLICY_FILE
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.instructions import (
    Instruction,
    new_run,
    pack_instruction,
)
from wardround.common.messages.replies import unpack_refusal
from wardround.common.parameters.schema import read_parameters
from wardround.common.security.audit_verification import Entry, read_log, verify_log
from wardround.common.security.signing_key import open_public_key
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine

ALONE = Machine(device="cpu", engine="in-process", threads=1)


STUDY = parse_study(
    {
        "study": {"name": "table", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["a", "b"],
            "covariates": [{"name": "x"}, {"name": "y"}],
        },
        "model": {"network": "mlp", "features": [6], "normalisation": "layer"},
        "training": {"optimiser": "sgd", "learning_rate": 0.2, "batch_size": 8},
        "federation": {"rounds": 3},
        "evaluation": {"metric": "auroc"},
    }
)


def write_site(folder: Path, patients: int = 300, **policy: str) -> Path:
    """Write a hospital; ``policy`` holds lines of TOML by key."""
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n')
    drawn = random.Random(folder.name)
    rows = ["patient,label,x,y"]
    for patient in range(patients):
        label = patient % 2
        rows.append(f"p{patient},{'ab'[label]},{drawn.gauss(label, 1):.4f},{drawn.gauss(0, 1):.4f}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    write_policy(folder, **policy)
    return folder


def write_policy(folder: Path, **changes: str) -> None:
    said = {"privacy_required": "false", "approved": f'["{STUDY.digest}"]', **changes}
    text = "\n".join(f"{key} = {value}" for key, value in said.items())
    path = folder / POLICY_FILE
    seen = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(seen + 10**9, seen + 10**9))


def context_of(folder: Path, study: Study = STUDY) -> Context:
    config: dict[str, Any] = {"site": str(folder), "device": "cpu", "explain-refusals": True}
    return Context(1, 7, config, RecordDict(), {"study": study.to_json()}, 1)


def ask(
    folder: Path, kind: str, instruction: Instruction | None = None, study: Study = STUDY
) -> RecordDict:
    claim_identity(1)
    content = (
        RecordDict({"instruction": ConfigRecord()})
        if instruction is None
        else pack_instruction(instruction)
    )
    message = Message(content, 7, kind)
    stamp(message, "message-1")
    reply = app(message, context_of(folder, study))
    assert not reply.has_error()
    return reply.content


def instruction_for(folder: Path, number: int = 1, study: Study = STUDY) -> Instruction:
    network = open_session(context_of(folder, study)).context.network
    return Instruction(study.digest, new_run(), number, read_parameters(network))


def refusal_of(content: RecordDict) -> tuple[str, str, str]:
    refusal = unpack_refusal(content)
    assert refusal is not None
    return refusal.site, refusal.code, refusal.reason


def said_by(folder: Path) -> list[tuple[str, str]]:
    return [(entry.event.kind, entry.event.verdict) for entry in log_of(folder)]


def log_of(folder: Path) -> list[Entry]:
    verify_log(folder / "audit", open_public_key(folder / "keys" / "site.pub"))
    return list(read_log(folder / "audit"))
