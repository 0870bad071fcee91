"""What must hold after every fault (I1 to I4; I5, no hang, is the deadline of each wait)."""

from collections import Counter

from tests.faults.stage import SITES, Stage

from wardround.client.policy.policy import approved_rounds
from wardround.client.privacy.ledger.entries import Released, Reserved
from wardround.client.privacy.ledger.file import LEDGER_FILE, LEDGER_FOLDER, read_ledger
from wardround.client.site.folder import AUDIT_FOLDER, KEY_FOLDER
from wardround.common.security.audit_verification import read_log, verify_log
from wardround.common.security.signing_key import PUBLIC_FILE, open_public_key
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.operators.messages import RunDetails
from wardround.server.scheduling.folder import RunFolder


def check_invariants(stage: Stage, details: RunDetails) -> None:
    """Check I1 to I4 after a run.

    Raises:
        AssertionError: One is broken.
    """
    _commits_are_whole(stage, details)
    for name in SITES:
        _ledger_covers_what_left(stage, name)
        _audit_log_holds(stage, name)
    _updates_count_once(details)


def _commits_are_whole(stage: Stage, details: RunDetails) -> None:
    folder = RunFolder(stage.federation.server, details.summary.run).checkpoints
    latest = CheckpointStore(folder).latest()  # reads and compares every hash
    assert latest is not None, "I1: no whole commit"
    assert latest.progress.round == details.summary.round, "I1: the last commit is lost"


def _ledger_covers_what_left(stage: Stage, name: str) -> None:
    folder = stage.site(name)
    if not (folder / LEDGER_FOLDER / LEDGER_FILE).exists():
        return
    entries = read_ledger(folder).entries
    reserved = {one.number: one.fact for one in entries if isinstance(one.fact, Reserved)}
    released = [one.fact.reservation for one in entries if isinstance(one.fact, Released)]
    assert len(set(released)) == len(released), "I2: two answers to one reservation"
    assert set(released) <= reserved.keys(), "I2: released without a reservation"
    parts = {"update": "train", "evaluation": "validation"}
    paid = {(f.part, f.study, f.run, f.round, f.attempt) for f in reserved.values()}
    for entry in read_log(folder / AUDIT_FOLDER):
        event = entry.event
        if event.kind in parts and event.study == stage.private.digest:
            key = (parts[event.kind], event.study, event.run, event.round, event.attempt)
            assert key in paid, f"I2: {key} left and was not paid for"
    measured = [f for f in reserved.values() if f.part == "validation"]
    answers = Counter((f.study, f.run, f.round) for f in measured)
    assert max(answers.values(), default=1) == 1, "I2: a model was measured twice"
    models = Counter(f.round for f in measured if f.study == stage.private.digest)
    # A stage's faults run one study again and again; each approval is good for one answer a round.
    rounds = approved_rounds(folder, stage.private)
    assert rounds is not None, "I2: a private study answered that nobody approved"
    most = rounds // stage.private.federation.rounds
    assert max(models.values(), default=0) <= most, "I2: a model was measured without an approval"


def _audit_log_holds(stage: Stage, name: str) -> None:
    folder = stage.site(name)
    if not (folder / AUDIT_FOLDER).exists() and not (folder / KEY_FOLDER / PUBLIC_FILE).exists():
        return  # it was never asked anything
    verify_log(folder / AUDIT_FOLDER, open_public_key(folder / KEY_FOLDER / PUBLIC_FILE))


def _updates_count_once(details: RunDetails) -> None:
    trained = [report for report in details.history if report.round <= details.summary.round]
    numbers = [report.round for report in trained]
    assert numbers == list(range(1, details.summary.round + 1)), "I3: a round is missing or twice"
    for report in trained:
        assert len(set(report.sites)) == len(report.sites), "I3: an update counted twice"
