"""What every Grid of ours has in common, over one whose sites are slow, silent or away."""

import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict

from wardround.common.flower.serverapp.grid import LinkGrid
from wardround.common.flower.site_grid import MessageNumbers, SiteGrid, begin_local_run, empty_run
from wardround.server.strategies.flower_strategy import _Nodes
from wardround.simulations.adversaries.grid import AdversarialGrid
from wardround.simulations.engines.in_process import InProcessGrid
from wardround.simulations.engines.pool import PoolGrid


class WaitingGrid(SiteGrid):
    """A Grid of two nodes, each of which replies when it has been asked so many times."""

    def __init__(self, looks: dict[int, int]) -> None:
        super().__init__(begin_local_run(7))
        self._looks, self._numbers = dict(looks), MessageNumbers()
        self._sent: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self._looks)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            self._sent[self._numbers.give(message)] = message
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            message = self._sent[message_id]
            node = message.metadata.dst_node_id
            self._looks[node] -= 1
            if self._looks[node] == 0:
                yield Message(RecordDict(), reply_to=message)


def message(grid: SiteGrid, node: int) -> Message:
    return grid.create_message(RecordDict(), "train", node, group_id="1")


def test_a_message_belongs_to_the_grids_run_and_is_for_the_node_it_names() -> None:
    grid = WaitingGrid({1: 1})
    assert grid.run.run_id == 7
    made = message(grid, 1)
    assert (made.metadata.run_id, made.metadata.dst_node_id) == (7, 1)
    grid.set_run(empty_run(8))
    assert grid.run.run_id == 8


def test_replies_are_waited_for_until_the_last_one_is_there() -> None:
    grid = WaitingGrid({1: 3, 2: 1})
    replies = list(grid.send_and_receive([message(grid, 1), message(grid, 2)]))
    assert [reply.metadata.src_node_id for reply in replies] == [2, 1]


def test_a_node_that_stays_silent_is_waited_for_no_longer_than_the_time_given() -> None:
    grid = WaitingGrid({1: 1, 2: 10**9})
    started = time.monotonic()
    replies = list(grid.send_and_receive([message(grid, 1), message(grid, 2)], timeout=0.3))
    assert [reply.metadata.src_node_id for reply in replies] == [1]
    assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize("kind", [AdversarialGrid, InProcessGrid, LinkGrid, PoolGrid, _Nodes])
def test_every_grid_of_ours_derives_from_it_and_from_nothing_between(kind: type[SiteGrid]) -> None:
    assert kind.__bases__ == (SiteGrid,)
    assert "send_and_receive" not in vars(kind)


def test_messages_get_the_ids_one_two_three() -> None:
    grid, numbers = WaitingGrid({1: 1}), MessageNumbers()
    assert [numbers.give(message(grid, 1)) for _ in range(2)] == ["message-1", "message-2"]
