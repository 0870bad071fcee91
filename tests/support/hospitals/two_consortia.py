"""A hospital in two consortia: two site folders, the same patients, two private studies."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.support.hospitals.hospital import STUDY, ask, instruction_for, write_site

from wardround.client.app import close_sessions
from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import NO_LEDGER, TRAIN, new_run
from wardround.common.messages.replies import unpack_refusal, unpack_update
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

LIFETIME, DELTA = 2.0, 1e-5
_ATTEMPTS, _TURN_SECONDS = 40, 60.0


def private_study(name: str, noise: float = 2.0) -> Study:
    content = STUDY.model_dump(exclude_defaults=True)
    return parse_study(
        {
            **content,
            "study": {"name": name, "task": "classification"},
            "training": {**content["training"], "local_steps": 10},
            "federation": {"rounds": 30},
            "privacy": {
                "mode": "patient",
                "noise_multiplier": noise,
                "sampling_rate": 0.1,
                "expected_patients": 30,
                "delta": DELTA,
            },
        }
    )


def write_hospital(folder: Path, study: Study, ledger: str | None = "../ledger") -> Path:
    """Write a site folder that has joined a consortium of its own; its patients are always these.

    Args:
        ledger: As site.toml says; None where it says nothing.
    """
    write_site(
        folder,
        approved=f'["{study.digest}"]',
        privacy_required="true",
        lifetime_epsilon=str(LIFETIME),
        lifetime_delta=str(DELTA),
        study_epsilon="8.0",
        refused_above_the_cap='"round"',
    )
    manifest = folder.parent / "patients.csv"
    if not manifest.exists():
        manifest.write_text((folder / "manifest.csv").read_text())
    (folder / "manifest.csv").write_text(manifest.read_text())
    said = [f'name = "{folder.name}"'] + ([] if ledger is None else [f'ledger = "{ledger}"'])
    (folder / "site.toml").write_text("\n".join(said) + "\n")
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "ca.crt").write_text(f"the authority of {folder.name}")
    return folder


def train_until_refused(
    folder: Path, study: Study, take_turn: Callable[[int], None] = lambda number: None
) -> tuple[list[ChainHead], str]:
    """Have a site train round after round, told each time what it said of its ledger before.

    Args:
        take_turn: Waits before a round until it is this site's turn.

    Returns:
        What it said of its ledger in each answer, and the word of its refusal.
    """
    heads, run = [NO_LEDGER], new_run()
    try:
        for number in range(1, _ATTEMPTS):
            take_turn(number)
            order = instruction_for(folder, number, study)
            content = ask(folder, TRAIN, replace(order, run=run, ledger=heads[-1]), study)
            refusal = unpack_refusal(content)
            if refusal is not None:
                return heads[1:], refusal.code
            heads.append(unpack_update(content, study).ledger)
    finally:
        close_sessions()
    return heads[1:], ""


def _take_turn(folder: Path, other: str, number: int) -> None:
    """Begin a round when the other site has begun as many, or has ended."""
    (folder.parent / f"{folder.name}-begins-{number}").touch()
    begun, until = folder.parent / f"{other}-begins-{number}", time.monotonic() + _TURN_SECONDS
    while not begun.exists() and not (folder.parent / f"{other}-ended").exists():
        assert time.monotonic() < until, f"{other} hangs"
        time.sleep(0.01)


def main() -> None:
    """Train a site folder while another one trains, and say what came of it."""
    folder, other = Path(sys.argv[1]), sys.argv[2]
    try:
        heads, code = train_until_refused(
            folder, private_study(folder.name), partial(_take_turn, folder, other)
        )
    finally:
        (folder.parent / f"{folder.name}-ended").touch()
    said = {"code": code, "counts": [head.entries for head in heads]}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
