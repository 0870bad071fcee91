"""Faults: a site's ledger is not as the site wrote it."""

from tests.faults.stage import Stage, copy_folder, flip_byte
from tests.faults.table.fault import SECOND, SENDS, Fault

from wardround.client.privacy.ledger.entries import Repaired
from wardround.client.privacy.ledger.file import LEDGER_FILE, LEDGER_FOLDER, read_ledger
from wardround.server.operators.messages import RunDetails


def _ledger_refuses(stage: Stage, run: str) -> RunDetails:
    details = stage.finish(run)
    for report in details.history:
        if report.sites:
            assert SECOND not in report.sites, f"{SECOND} trained in round {report.round}"
    return details


def ledger_is_torn(stage: Stage) -> RunDetails:
    stage.finish(stage.submit(stage.private))
    path = stage.site(SECOND) / LEDGER_FOLDER / LEDGER_FILE
    with path.open("ab") as stream:
        stream.write(b'{"fact":{"attempt":0,"dat')
    details = stage.finish(stage.submit(stage.private))
    assert all(SECOND in report.sites for report in details.history if report.sites)
    entries = read_ledger(stage.site(SECOND)).entries
    assert any(isinstance(one.fact, Repaired) for one in entries)
    return details


def ledger_is_edited(stage: Stage) -> RunDetails:
    stage.finish(stage.submit(stage.private))
    path = stage.site(SECOND) / LEDGER_FOLDER / LEDGER_FILE
    whole = path.read_bytes()
    flip_byte(path, len(whole) // 2)
    try:
        return _ledger_refuses(stage, stage.submit(stage.private))
    finally:
        path.write_bytes(whole)


def ledger_is_rolled_back(stage: Stage) -> RunDetails:
    stage.finish(stage.submit(stage.private))
    ledger, kept = stage.site(SECOND) / LEDGER_FOLDER, stage.folder / "kept-ledger"
    newer = stage.folder / "newer-ledger"
    copy_folder(ledger, kept)
    stage.arm("hold", SENDS, 3)
    run = stage.submit(stage.private)
    stage.wait_reached()
    copy_folder(ledger, newer)
    copy_folder(kept, ledger)
    stage.go()
    try:
        details = stage.finish(run)
    finally:
        copy_folder(newer, ledger)
    counted = {report.round: report.sites for report in details.history}
    assert SECOND in counted[2]
    assert SECOND not in counted[3], "a ledger that forgot was believed"
    assert SECOND not in counted[4]
    return details


FAULTS = (
    Fault(
        "18",
        "torn last line of a site's ledger",
        "cut off, noted as repaired; the site takes part",
        ledger_is_torn,
    ),
    Fault(
        "19",
        "a byte in the middle of a site's ledger changed",
        "the site takes no part; the others go on",
        ledger_is_edited,
    ),
    Fault(
        "20",
        "a site's ledger restored from an old copy during a run",
        "refused: the server remembers a longer one; the others go on",
        ledger_is_rolled_back,
    ),
)
