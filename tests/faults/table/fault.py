"""One fault of the table, and the places where faults happen."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.stage import SITES, Stage, refusals_of

from wardround.server.operators.messages import RunDetails

FIRST, SECOND, THIRD = SITES
# Functions at whose calls something is done; see planted/sitecustomize.py.
TRAINS, ANSWERS = "client.session.session:SiteSession.train", "client.egress.gateway:Gateway.train"
STEPS = "client.privacy.step:learning_rate_at"  # of private training
RENEWS = "client.site.enrolment:renew"
RESERVES = "client.privacy.ledger.ledger:PrivacyLedger.reserve"
RELEASES = "client.privacy.ledger.ledger:PrivacyLedger.release"
ADDRESSES = "server.rounds.asking:addressed"
SENDS, FOLDS = "server.rounds.asking:pack_instruction", "server.rounds.asking:unpack_update"
AGGREGATES, COMMITS = (
    "server.rounds.loop:as_measurements",
    "server.checkpoints.store:CheckpointStore._write",
)
SENDS_ANSWER = "common.flower.supernode.transfers:Transfers.push"
STOPPED_SECONDS = 20.0

SAME = "goes on from the last commit; the same model, bit for bit, as without the fault"
QUORUM = "left out of that round at the deadline; the others go on; its late answer is not counted"
REFUSED = "refused, with the site's name and the reason; the others go on; the next round has it"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        expected: What comes of it, as it stands in the documentation.
        act: Does it, and returns the run that it was done to. It raises NotHereError where this
            machine cannot do it.
    """

    number: str
    name: str
    expected: str
    act: Callable[[Stage], RunDetails]


def trained_once_a_round(stage: Stage, name: str, rounds: int) -> None:
    """Make sure that a site trained as often as it was asked.

    Raises:
        AssertionError: It did not.
    """
    trained = stage.calls(TRAINS, name)
    assert trained == rounds, f"{name} trained {trained} times for {rounds} rounds"


def one_was_late(stage: Stage, run: str) -> RunDetails:
    """Make sure that a run went on in round 2 without the third site, which was late."""
    details = stage.finish(run)
    second = details.history[1]
    assert second.round == 2
    assert set(second.sites) == {FIRST, SECOND}, f"round 2 counted {second.sites}"
    assert "deadline" in refusals_of(details)[2, THIRD]
    return details


def refused_command(*words: str) -> str:
    """Return what a command of wardround says that refuses to run."""
    said = subprocess.run(
        [sys.executable, "-m", "wardround.cli", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert said.returncode == 3, f"exit code {said.returncode}: {said.stderr}"
    return said.stderr
