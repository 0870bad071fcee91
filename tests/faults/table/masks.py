"""Faults of secure aggregation: a site or the server is killed in a stage of a masked round."""

import time
from collections.abc import Callable

from tests.faults.stage import PATIENCE_SECONDS, SITES, Stage
from tests.faults.table.fault import SECOND, Fault

from wardround.client.site.idle_masks import MASKING_FOLDER
from wardround.common.privacy.secure_aggregation.site_state import SiteRound
from wardround.server.operators.messages import RunDetails

MOST_SECONDS = PATIENCE_SECONDS / 2  # a minute, where nobody asks for more patience
_TRAINS, _ANSWERS = (
    "client.egress.masking:MaskedSite.train",
    "client.egress.masking:MaskedSite.answer",
)
_SERVER = "common.privacy.secure_aggregation.server"
EXACT = "goes on with the same keys; each round's sum is exact: the same model, bit for bit"
# Of round 2, in whose stages the fault happens: a site answers four stages after its training.
_SITE_CALLS = {
    "33": ("before it answers with its keys", _TRAINS, 2, False),
    "33b": ("after it has sealed its shares", _ANSWERS, 5, True),
    "33c": ("after it has masked", _ANSWERS, 6, True),
    "33d": ("after it has agreed on the survivors", _ANSWERS, 7, True),
    "33e": ("after it has told its shares", _ANSWERS, 8, True),
}
_SERVER_CALLS = {
    "33f": ("all keys are there", "close_roster"),
    "33g": ("all sealed shares are there", "close_shares"),
    "33h": ("all masked updates are there", "close_masked"),
    "33i": ("all agree", "close_agreements"),
    "33j": ("all shares are told, before the sum is committed", "unmask"),
}


def _finish(stage: Stage, run: str, expected: str, began: float) -> RunDetails:
    details = stage.finish_as_simulated(run, expected)
    seconds = time.monotonic() - began
    assert seconds < MOST_SECONDS, f"it took {seconds:.0f} s from the kill to the end"
    assert all(report.sites in (SITES, ()) for report in details.history), "a sum of fewer"
    _nothing_is_left(stage)
    return details


def _nothing_is_left(stage: Stage) -> None:
    """Check that no secret of the run is left at its end; who was away has a day for it."""
    for name in SITES:
        newest = max(
            (stage.site(name) / MASKING_FOLDER).glob("*/round"),
            key=lambda path: path.stat().st_mtime,
        )
        assert SiteRound.from_bytes(newest.read_bytes()).is_over, f"{name} keeps its secrets"


def site_dies(number: str, point: str, call: int, after: bool) -> Callable[[Stage], RunDetails]:
    def act(stage: Stage) -> RunDetails:
        study, expected = stage.approve_masked(ord(number[-1]))
        stage.arm("die with parent", point, call, SECOND, after)
        run = stage.submit(study)
        stage.wait_reached()
        began = time.monotonic()
        stage.restart_site(SECOND)
        return _finish(stage, run, expected, began)

    return act


def server_dies(number: str, point: str) -> Callable[[Stage], RunDetails]:
    def act(stage: Stage) -> RunDetails:
        study, expected = stage.approve_masked(ord(number[-1]))
        stage.arm("die with parent", f"{_SERVER}:ServerRound.{point}", 2)
        run = stage.submit(study)
        stage.wait_reached()
        began = time.monotonic()
        stage.restart_server()
        return _finish(stage, run, expected, began)

    return act


FAULTS = (
    *(
        Fault(number, f"kill -9 of a site of three {when}", EXACT, site_dies(number, *where))
        for number, (when, *where) in _SITE_CALLS.items()
    ),
    *(
        Fault(number, f"kill -9 of the server when {when}", EXACT, server_dies(number, point))
        for number, (when, point) in _SERVER_CALLS.items()
    ),
)
