"""Who takes part in a round, and which answers count."""

import math
import time
from collections.abc import Iterable, Iterator

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.errors import WardroundError
from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.site_grid import MessageNumbers, SiteGrid, begin_local_run
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.arithmetic import distance
from wardround.common.parameters.compression import CompressionOptions, compress, update_of
from wardround.common.parameters.schema import Parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.rounds.updates import UpdateChecks
from wardround.server.sites.exchange import Exchange, Node
from wardround.server.sites.participation import select_sites

RUN = "0" * 32
SENT: Parameters = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


def study_with(**federation: object) -> Study:
    return parse_study(
        {
            "study": {"name": "a", "task": "classification"},
            "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "age"}]},
            "model": {"network": "mlp", "features": []},
            "federation": federation,
        }
    )


def update(study: Study, parameters: Parameters, number: int = 2) -> SiteUpdate:
    return SiteUpdate("site", study.digest, number, 0, parameters, 10, 1, 0.1, 0.2, run=RUN)


def moved(by: float) -> Parameters:
    return {"w": SENT["w"] + by, "n": SENT["n"] + 1}


def test_a_good_update_is_admitted_as_it_is() -> None:
    study = study_with()
    model, norm = UpdateChecks(study, RUN, 2, SENT, math.nan).admit(update(study, moved(1.0)))
    assert torch.equal(model["w"], SENT["w"] + 1)
    assert model["n"].dtype == torch.int64
    assert math.isnan(norm)


@pytest.mark.parametrize(
    ("parameters", "number", "reason"),
    [
        (moved(1.0), 1, "round 1 came in round 2"),
        ({"w": SENT["w"]}, 2, "n"),
        ({"w": SENT["w"].T.contiguous(), "n": SENT["n"]}, 2, "w"),
        ({"w": SENT["w"].double(), "n": SENT["n"]}, 2, "w"),
        ({"w": SENT["w"] * math.nan, "n": SENT["n"]}, 2, "NaN or infinity"),
        ({"w": SENT["w"] + math.inf, "n": SENT["n"]}, 2, "NaN or infinity"),
    ],
)
def test_a_bad_update_is_refused_with_its_reason(
    parameters: Parameters, number: int, reason: str
) -> None:
    study = study_with()
    with pytest.raises(WardroundError, match=reason):
        UpdateChecks(study, RUN, 2, SENT, math.nan).admit(update(study, parameters, number))


def test_an_update_that_goes_ten_times_as_far_as_usual_is_refused() -> None:
    study = study_with(norm_limit=10)
    usual = distance(moved(1.0), SENT)
    assert usual == pytest.approx(math.sqrt(6))
    update_checks = UpdateChecks(study, RUN, 2, SENT, usual)
    assert update_checks.admit(update(study, moved(9.9)))[1] == pytest.approx(9.9 * usual)
    with pytest.raises(WardroundError, match=r"10\.1 times as far"):
        update_checks.admit(update(study, moved(10.1)))


def test_the_first_round_knows_no_usual_distance_and_refuses_nobody_for_it() -> None:
    study = study_with(norm_limit=10)
    assert UpdateChecks(study, RUN, 2, SENT, math.nan).admit(update(study, moved(1e6)))[1] > 1e6


def test_after_a_round_in_which_no_site_moved_nobody_is_refused_for_a_distance() -> None:
    """A warm-up begins at a learning rate of 0, and ten times nothing is no limit."""
    study = study_with(norm_limit=10)
    assert UpdateChecks(study, RUN, 2, SENT, 0.0).admit(update(study, moved(1.0)))[1] > 0


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "int4", "top-k"])
def test_a_compressed_update_is_admitted_as_the_model_it_stands_for(kind: str) -> None:
    study = study_with(compression=kind, kept_fraction=1.0)
    change = update_of(moved(1.0), SENT)
    arrays, _ = compress(change, kind, CompressionOptions(kept_fraction=1.0))
    model, _ = UpdateChecks(study, RUN, 2, SENT, math.nan).admit(update(study, arrays))
    assert torch.allclose(model["w"], SENT["w"] + 1, atol=0.08)
    assert int(model["n"]) == 4


def test_an_uncompressed_update_is_refused_where_the_study_compresses() -> None:
    study = study_with(compression="int8")
    with pytest.raises(WardroundError):
        UpdateChecks(study, RUN, 2, SENT, math.nan).admit(update(study, moved(1.0)))


NODES = tuple(Node(number, f"site-{number:02d}", 10) for number in range(10))


@settings(max_examples=50)
@given(st.floats(0.01, 1.0), st.integers(1, 12), st.integers(1, 100))
def test_selection_takes_the_fraction_but_never_less_than_the_quorum(
    fraction: float, minimum: int, number: int
) -> None:
    study = study_with(fraction=fraction, minimum_sites=minimum)
    chosen = select_sites(NODES, study, number)
    assert len(chosen) == min(10, max(math.ceil(fraction * 10), minimum))
    assert [node.site for node in chosen] == sorted({node.site for node in chosen})
    assert chosen == select_sites(NODES, study, number)


def test_selection_differs_from_round_to_round_and_reaches_every_site() -> None:
    study = study_with(fraction=0.3)
    rounds = [{node.site for node in select_sites(NODES, study, n)} for n in range(1, 41)]
    assert len({frozenset(chosen) for chosen in rounds}) > 10
    assert set.union(*rounds) == {node.site for node in NODES}


class SlowGrid(SiteGrid):
    """A Grid whose sites answer after some seconds, or are away for the first tries."""

    def __init__(self, seconds: dict[int, float], away: dict[int, int] | None = None) -> None:
        super().__init__(begin_local_run(1))
        self._numbers = MessageNumbers()
        self._seconds = seconds
        self._away = dict(away or {})
        self._due: dict[str, tuple[Message, float]] = {}
        self.pushed: list[int] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self._seconds)

    def push_messages(self, messages: Iterable[Message]) -> Iterator[str]:
        for message in messages:
            node = message.metadata.dst_node_id
            self.pushed.append(node)
            message_id = self._numbers.give(message)
            self._due[message_id] = (message, time.monotonic() + self._seconds[node])
            yield message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message_id in message_ids:
            message, due = self._due.get(message_id, (None, math.inf))
            if message is None or time.monotonic() < due:
                continue
            del self._due[message_id]
            node = message.metadata.dst_node_id
            if self._away.get(node, 0) > 0:
                self._away[node] -= 1
                yield Message(Error(5, "node unavailable"), reply_to=message)
            else:
                yield Message(RecordDict({"x": ConfigRecord({"node": node})}), reply_to=message)


def test_a_site_past_the_deadline_is_given_up_and_its_late_reply_refused_by_name() -> None:
    grid = SlowGrid({0: 0.0, 1: 0.6, 2: 0.0})
    mailbox = Exchange(grid)
    started = time.monotonic()
    replies = list(mailbox.ask(NODES[:3], "train", RecordDict, "round 1", deadline_seconds=0.2))
    assert time.monotonic() - started < 0.5
    assert [reply.content is not None for reply in replies] == [True, False, True]
    assert replies[1].refusal is not None
    assert replies[1].refusal.code == "late"
    assert mailbox.late_replies() == []
    time.sleep(0.6)
    (late,) = mailbox.late_replies()
    assert (late.site, late.reason) == ("site-01", "its answer to round 1 came too late")
    assert mailbox.late_replies() == []


def test_a_site_that_went_away_and_came_back_is_asked_again() -> None:
    grid = SlowGrid({0: 0.0, 1: 0.0}, away={1: 2})
    replies = list(Exchange(grid).ask(NODES[:2], "train", RecordDict, "round 1"))
    assert all(reply.content is not None for reply in replies)
    assert grid.pushed == [0, 1, 1, 1]


@pytest.mark.parametrize(("seconds", "away", "is_stuck"), [(9.0, 0, True), (0.3, 1, False)])
def test_a_site_that_is_starting_again_is_told_from_one_that_is_stuck(
    seconds: float, away: int, is_stuck: bool
) -> None:
    grid = SlowGrid({0: seconds}, {0: away})
    (reply,) = Exchange(grid).ask(NODES[:1], "train", RecordDict, "round 1", 0.31)
    assert (reply.is_missing, reply.is_stuck) == (True, is_stuck)


def test_flowers_codes_for_a_site_that_is_away_are_known() -> None:
    from flwr.common.constant import ErrorCode  # noqa: TID251 # the contract under test

    assert is_transient(ErrorCode.NODE_UNAVAILABLE)
    assert not is_transient(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
