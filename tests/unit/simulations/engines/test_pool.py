"""The pool of workers: shared memory that leaves nothing behind, workers that may die."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from wardround.common.flower.site_grid import SiteGrid
from wardround.simulations.engines.in_process import InProcessGrid, site_contexts
from wardround.simulations.engines.pool import AHEAD, PoolGrid, WorkerPlan
from wardround.simulations.engines.pool_worker import Request, answer_request
from wardround.simulations.engines.shared_memory import Inbox, Outbox, Shell

app = ClientApp()


@app.train()
def double(message: Message, context: Context) -> Message:
    """Answer with the arrays doubled, and say which process did it."""
    instruction = message.content.config_records["instruction"]
    if instruction.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if instruction.get("raise"):
        raise KeyError
    (array,) = message.content.array_records["model"].to_numpy_ndarrays()
    reply = RecordDict(
        {
            "model": ArrayRecord([2 * array]),
            "facts": ConfigRecord({"process": os.getpid(), "node": context.node_id}),
        }
    )
    return Message(reply, reply_to=message)


def instruction_of(size: int = 4, value: float = 1.0, **words: bool) -> RecordDict:
    array = np.full(size, value, dtype=np.float32)
    return RecordDict(
        {"instruction": ConfigRecord({"round": 1, **words}), "model": ArrayRecord([array])}
    )


@pytest.fixture
def contexts() -> dict[int, Context]:
    return site_contexts([Path(f"site-{n}") for n in range(5)], "", "cpu", 1)


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked: another process could not import this file's app by its name."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr("wardround.simulations.engines.pool.choose_context", lambda _: fork)


@pytest.fixture
def pool(contexts: dict[int, Context]) -> Iterator[PoolGrid]:
    grid = PoolGrid(app, contexts, 1, WorkerPlan(("cpu", "cpu")))
    yield grid
    grid.close()


def send(grid: SiteGrid, content: RecordDict, *nodes: int) -> list[Message]:
    messages = [grid.create_message(content, "train", node, "g") for node in nodes]
    ids = list(grid.push_messages(messages))
    return [reply for message_id in ids for reply in grid.pull_messages([message_id])]


def numbers(message: Message) -> list[float]:
    (array,) = message.content.array_records["model"].to_numpy_ndarrays()
    return array.tolist()


def test_workers_answer_as_a_single_process_does(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    standalone = InProcessGrid(app, contexts, 1)
    for size, value in ((4, 1.5), (4, -2.0), (1000, 0.1), (3, 7.0)):
        content = instruction_of(size, value)
        expected = send(standalone, content, *contexts)
        assert [numbers(r) for r in send(pool, content, *contexts)] == [
            numbers(r) for r in expected
        ]


def test_a_site_stays_with_its_worker_and_no_worker_is_idle(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    def processes() -> list[object]:
        replies = send(pool, instruction_of(), *contexts)
        return [r.content.config_records["facts"]["process"] for r in replies]

    first = processes()
    assert len(set(first)) == 2
    assert os.getpid() not in first
    assert processes() == first


def test_a_site_that_raises_answers_with_an_error_and_its_worker_lives(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    node = next(iter(contexts))
    (failed,) = send(pool, instruction_of(**{"raise": True}), node)
    assert failed.has_error()
    assert "KeyError" in failed.error.reason
    (fine,) = send(pool, instruction_of(), node)
    assert numbers(fine) == [2.0] * 4


def test_a_killed_worker_costs_its_replies_and_not_the_run(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    nodes = list(contexts)
    replies = send(pool, instruction_of(die=True), nodes[0])
    assert replies[0].has_error()
    assert "worker process ended" in replies[0].error.reason
    after = send(pool, instruction_of(), *nodes)
    assert [numbers(reply) for reply in after] == [[2.0] * 4] * 5


def test_a_worker_killed_from_outside_is_replaced(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    (reply,) = send(pool, instruction_of(), next(iter(contexts)))
    killed = int(str(reply.content.config_records["facts"]["process"]))
    os.kill(killed, signal.SIGKILL)
    for worker in pool._workers:
        if worker.process.pid == killed:
            worker.process.join()
    replies = send(pool, instruction_of(), *contexts)
    answered = [r for r in replies if not r.has_error()]
    assert len(answered) >= 2, "the other worker's sites answer"
    again = send(pool, instruction_of(), *contexts)
    assert [numbers(reply) for reply in again] == [[2.0] * 4] * 5


def test_an_instruction_in_the_queue_is_not_overwritten_by_the_next_model(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    """An asynchronous server sends new models while sites that share a worker still wait."""
    expected = {}
    for value, node in enumerate(contexts):
        message = pool.create_message(instruction_of(value=float(value)), "train", node, "g")
        (message_id,) = pool.push_messages([message])
        expected[message_id] = [2.0 * value] * 4
    for message_id, doubled in expected.items():
        (reply,) = pool.pull_messages([message_id])
        assert numbers(reply) == doubled
    assert len(pool._outboxes._boxes) <= len(contexts)


def test_a_site_that_is_behind_trains_for_its_newest_instruction_only(
    pool: PoolGrid, contexts: dict[int, Context]
) -> None:
    node = next(iter(contexts))
    messages = [
        pool.create_message(instruction_of(value=float(value)), "train", node, "g")
        for value in range(6)
    ]
    ids = [message_id for message in messages for message_id in pool.push_messages([message])]
    replies = [reply for message_id in ids for reply in pool.pull_messages([message_id])]
    withdrawn = [reply.has_error() for reply in replies]
    assert withdrawn == [False] * AHEAD + [True] * (5 - AHEAD) + [False]
    assert numbers(replies[-1]) == [10.0] * 4


def test_an_instruction_that_was_overwritten_is_refused_and_its_worker_lives(
    contexts: dict[int, Context],
) -> None:
    outbox, inbox = Outbox(), Inbox()
    message = Message(instruction_of(), next(iter(contexts)), "train")
    request = Request(message.metadata, outbox.put(message.content))
    outbox.put(instruction_of(value=2.0))
    try:
        assert "withdrawn" in answer_request(app, contexts, inbox, request).error.reason
    finally:
        inbox.close()
        outbox.close()


def segments(grid: PoolGrid) -> set[str]:
    read = {name for worker in grid._workers for name in worker.inbox._attached}
    return read | {box.segment for box in grid._outboxes._boxes if box.segment}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is no folder here")
@pytest.mark.parametrize("kill", [False, True])
def test_a_closed_pool_leaves_no_shared_memory(contexts: dict[int, Context], kill: bool) -> None:
    grid = PoolGrid(app, contexts, 1, WorkerPlan(("cpu", "cpu")))
    seen: set[str] = set()
    for size in (10, 100_000, 300_000):  # segments grow, and the outgrown ones must go
        send(grid, instruction_of(size), *contexts)
        seen |= segments(grid)
    pids = [worker.process.pid for worker in grid._workers]
    if kill:
        send(grid, instruction_of(die=True), next(iter(contexts)))
        send(grid, instruction_of(), *contexts)
    grid.close()
    assert len(seen) >= 3
    left = {name for name in seen if (Path("/dev/shm") / name.lstrip("/")).exists()}
    if kill:
        # What a killed worker had written is freed by the tracker, when this process ends.
        assert len(left) <= 1
    else:
        assert not left
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid or 0), 0)


def test_sites_are_spread_by_their_work() -> None:
    contexts = site_contexts([Path(name) for name in "abcd"], "", "cpu", 1)
    a, b, c, d = contexts
    plan = WorkerPlan(("cpu", "cpu"), load={a: 10, b: 3, c: 4, d: 3})
    shares = [set(share) for share in plan.divide(contexts)]
    assert {frozenset(share) for share in shares} == {frozenset({a}), frozenset({b, c, d})}


# --- Shared arrays -------------------------------------------------------------
@pytest.fixture
def boxes() -> Iterator[tuple[Outbox, Inbox]]:
    outbox, inbox = Outbox(), Inbox()
    yield outbox, inbox
    inbox.close()
    outbox.close()


Boxes = tuple[Outbox, Inbox]
DTYPES = [np.float32, np.float64, np.int64, np.uint8, np.bool_]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_arrays_come_back_as_they_were(boxes: Boxes, dtype: type, shape: tuple[int, ...]) -> None:
    outbox, inbox = boxes
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    content = RecordDict(
        {
            "instruction": ConfigRecord({"round": 4}),
            "model": ArrayRecord({"a": Array(array), "b": Array(np.arange(5))}),
            "empty": ArrayRecord(),
        }
    )
    taken = inbox.take(outbox.put(content))
    assert taken is not None
    assert taken.config_records["instruction"]["round"] == 4
    again = taken.array_records["model"]["a"].numpy()
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert np.array_equal(again, array)
    assert list(taken.array_records["empty"]) == []


def test_a_content_without_arrays_needs_no_memory(boxes: Boxes) -> None:
    outbox, inbox = boxes
    shell = outbox.put(RecordDict({"instruction": ConfigRecord({"round": 4})}))
    assert shell.segment == ""
    taken = inbox.take(shell)
    assert taken is not None
    assert taken.config_records["instruction"]["round"] == 4


def test_arrays_that_many_messages_share_are_written_once(boxes: Boxes) -> None:
    outbox, inbox = boxes
    content = instruction_of()
    shells = [
        outbox.put(RecordDict({**content, "progress": ConfigRecord({"counted-round": number})}))
        for number in (4, 7)
    ]
    assert {shell.edition for shell in shells} == {1}
    taken = [inbox.take(shell, keep=True) for shell in shells]
    said = [t.config_records["progress"]["counted-round"] for t in taken if t is not None]
    assert said == [4, 7], "what one site alone is told is its own"
    assert outbox.put(instruction_of()).edition == 2


def test_a_reader_that_comes_too_late_is_told(boxes: Boxes) -> None:
    outbox, inbox = boxes
    first = outbox.put(instruction_of(value=1.0))
    second = outbox.put(instruction_of(value=2.0))
    assert inbox.take(first) is None
    taken = inbox.take(second)
    assert taken is not None
    assert taken.array_records["model"].to_numpy_ndarrays()[0].tolist() == [2.0] * 4


def test_a_reader_that_kept_its_arrays_need_not_read_them_again(boxes: Boxes) -> None:
    outbox, inbox = boxes
    first = outbox.put(instruction_of(value=1.0))
    kept = inbox.take(first, keep=True)
    outbox.put(instruction_of(value=2.0))
    again = inbox.take(first, keep=True)
    assert kept is not None
    assert again is not None
    assert again.array_records["model"].to_numpy_ndarrays()[0].tolist() == [1.0] * 4


def test_memory_grows_with_the_message(boxes: Boxes) -> None:
    outbox, inbox = boxes
    small = outbox.put(instruction_of(size=10))
    large = outbox.put(instruction_of(size=100_000))
    assert small.segment != large.segment
    taken = inbox.take(large)
    assert taken is not None
    assert len(taken.array_records["model"].to_numpy_ndarrays()[0]) == 100_000
    assert outbox.put(instruction_of(size=10)).segment == large.segment, "and is used again"


def test_what_was_read_does_not_change_when_the_memory_does(boxes: Boxes) -> None:
    outbox, inbox = boxes
    taken = inbox.take(outbox.put(instruction_of(value=1.0)))
    outbox.put(instruction_of(value=9.0))
    assert taken is not None
    assert taken.array_records["model"].to_numpy_ndarrays()[0].tolist() == [1.0] * 4


def test_a_shell_of_another_edition_is_not_believed(boxes: Boxes) -> None:
    outbox, inbox = boxes
    shell: Shell = outbox.put(instruction_of())
    assert inbox.take(replace(shell, edition=shell.edition + 1)) is None
