"""Rounds whose sites come and go: who is asked, who is counted, when a run ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from tests.support.scripted_sites import ScriptedGrid, ScriptedSite, study_with

from wardround.common.errors import RunError
from wardround.common.study.study import Study
from wardround.server.app import make_server_app
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.sites.deadlines import Deadlines, Limits
from wardround.server.sites.exchange import NO_ANSWER, Node
from wardround.server.sites.participation import LedgerMemory, RunLedgers
from wardround.server.sites.site_info import describe_sites

DEADLINE_SECONDS = 0.3


class SilentGrid(ScriptedGrid):
    """A grid where a site answers no training in some rounds."""

    def __init__(self, sites: list[ScriptedSite], silent: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(sites)
        self.silent, self.asked = silent, list[tuple[int, str]]()
        self.waits = list[tuple[str, str]]()

    def push_messages(self, messages):  # type: ignore[no-untyped-def] # as the grid below
        for message in messages:
            if message.metadata.message_type == "train":
                place = int(message.metadata.group_id.split()[-1])
                self.asked.append((place, self._site_of[message.metadata.dst_node_id].name))
            yield from super().push_messages([message])

    def pull_messages(self, message_ids):  # type: ignore[no-untyped-def] # as the grid below
        for message_id in message_ids:
            if not self._is_silent(self._waiting[message_id]):
                yield from super().pull_messages([message_id])

    def _is_silent(self, message: Message) -> bool:
        if message.metadata.message_type != "train":
            return False
        place = int(message.metadata.group_id.split()[-1])
        return place in self.silent.get(self._site_of[message.metadata.dst_node_id].name, ())


@dataclass
class Register:
    """Sites of which those that were missed are out until a round."""

    nodes: tuple[Node, ...]
    back_in: int
    deadlines: Deadlines
    waits: list[tuple[str, str]]
    ledgers: LedgerMemory = field(default_factory=RunLedgers)
    out: set[str] = field(default_factory=set)

    def of_round(self, number: int) -> tuple[Node, ...]:
        if number >= self.back_in:
            self.out.clear()
        return tuple(node for node in self.nodes if node.site not in self.out)

    def absent(self) -> Mapping[str, str]:
        return dict.fromkeys(self.out, "has not answered since")

    def miss(self, site: str, number: int, is_stuck: bool) -> None:
        self.out.add(site)

    def note(self, site: str) -> None:
        self.out.discard(site)

    def wait(self, site: str, words: str) -> None:
        self.waits.append((site, words))


def federate(
    study: Study, folder: Path, silent: Mapping[str, tuple[int, ...]], back_in: int = 99
) -> tuple[SilentGrid, list[RoundRecord]]:
    grid = SilentGrid([ScriptedSite(name, study) for name in ("a", "b", "c")], silent)

    def gather(_: Grid, study: Study) -> Register:
        limits = Limits(DEADLINE_SECONDS, DEADLINE_SECONDS)
        nodes = describe_sites(grid, study)[0]
        return Register(nodes, back_in, Deadlines(None, limits), grid.waits)

    settings = {"study": study.to_json(), "checkpoints": str(folder), "durable": False}
    context = Context(1, 1, {}, RecordDict(), settings)
    make_server_app(gather=gather)(grid, context)
    return grid, read_records(CheckpointStore(folder).history_path)


def test_a_stuck_site_is_asked_once_and_noted_in_each_round_until_it_is_back(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=5, minimum_sites=2)
    grid, records = federate(study, tmp_path, {"b": (2,)}, back_in=5)
    assert [number for number, site in grid.asked if site == "b"] == [1, 2, 5]
    assert [[site.site for site in record.sites] for record in records[:5]] == [
        ["a", "b", "c"],
        ["a", "c"],
        ["a", "c"],
        ["a", "c"],
        ["a", "b", "c"],
    ]
    reasons = [[one.reason for one in record.refusals] for record in records[:5]]
    assert reasons == [[], [NO_ANSWER], ["has not answered since"], ["has not answered since"], []]
    assert records[1].seconds >= DEADLINE_SECONDS


def test_a_site_that_keeps_a_round_waiting_is_named_while_it_does(tmp_path: Path) -> None:
    grid, _ = federate(study_with(rounds=3, minimum_sites=2), tmp_path, {"b": (2,)})
    ((site, words), after) = grid.waits
    assert site == "b"
    assert words.startswith("round 2 waits for b: no answer yet")
    assert after == ("b", "")


def test_who_is_left_is_no_quorum_of_itself(tmp_path: Path) -> None:
    study = study_with(rounds=4, minimum_sites=2)
    with pytest.raises(RunError, match=r"round 3 has 1 updates and needs 2 .*has not answered"):
        federate(study, tmp_path, {"b": (2,), "c": (3,)})
    commit = CheckpointStore(tmp_path).latest()
    assert commit is not None
    assert commit.progress.round == 2


def test_an_asynchronous_run_with_too_few_sites_ends_with_their_names(tmp_path: Path) -> None:
    study = study_with(rounds=3, minimum_sites=2, buffer_size=2)
    silent = {"b": (1, 2, 3), "c": (1, 2, 3)}
    with pytest.raises(RunError, match=rf"model 1 has 1 of 2 updates .*b: {NO_ANSWER}"):
        federate(study, tmp_path, silent)
