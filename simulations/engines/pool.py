"""A Grid of persistent workers: as many as cores or GPUs, never one a site.

Workers are forked after the imports where that is safe (``start_method.py``). A site stays with its
worker, so that its data, transforms and state stay warm. A model is written into shared memory once
for all, and nobody sleeps: workers wait at a pipe, the server waits at all of them.
"""

import gc
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message, MessageType
from flwr.clientapp import ClientApp

from wardround.common.flower.messages.content import array_bytes
from wardround.common.flower.site_grid import MessageNumbers, SiteGrid, begin_local_run, rebuild
from wardround.common.runtime.system.workers import interrupt_worker, is_forked, start_tracker
from wardround.simulations.engines.in_process import CLIENT_APP_RAISED
from wardround.simulations.engines.pool_worker import Pipe, Reply, Request, withdrawn, work
from wardround.simulations.engines.shared_memory import Inbox, Outboxes, Shell
from wardround.simulations.engines.start_method import choose_context, start

if TYPE_CHECKING:
    from wardround.common.runtime.system.workers import StartContext

POLL_SECONDS = 1.0  # how often a caller may look at its deadline
AHEAD = 2  # messages a worker holds, so that it never waits for the next one
HELD_BYTES = 512 * 2**20  # answers that may wait in the server's memory for their turn


@dataclass(frozen=True, slots=True)
class _Instruction:
    message: Message
    shell: Shell

    def is_replaced_by(self, other: Message) -> bool:
        """Whether a site has no use for this one once it has the other: it trains for one."""
        old, new = self.message.metadata, other.metadata
        return (
            old.dst_node_id == new.dst_node_id
            and old.message_type == new.message_type == MessageType.TRAIN
        )


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Pipe
    contexts: dict[int, Context]
    inbox: Inbox = field(default_factory=Inbox)
    waiting: deque[_Instruction] = field(default_factory=deque)
    sent: dict[str, _Instruction] = field(default_factory=dict)

    def ask_to_end(self) -> None:
        """Tell it to end, and to leave what it is at: the run was interrupted."""
        try:
            self.pipe.send(None)
        except OSError:
            self.process.kill()
        if self.sent:
            interrupt_worker(self.process.pid)


class PoolGrid(SiteGrid):
    """Runs each site's work in the worker it is pinned to."""

    def __init__(
        self, app: ClientApp, contexts: Mapping[int, Context], run_id: int, plan: "WorkerPlan"
    ) -> None:
        super().__init__(begin_local_run(run_id))
        self._app = app
        self._numbers = MessageNumbers()
        self._nodes = tuple(contexts)
        self._plan = plan
        start_tracker()
        self._outboxes = Outboxes()
        self._held: dict[str, Message] = {}
        self._start_context = choose_context(plan.devices)
        with _frozen_objects(self._start_context):
            self._workers = [self._start(share) for share in plan.divide(contexts) if share]
        self._worker_of = {node: w for w in self._workers for node in w.contexts}

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages for the workers of their sites."""
        ids, fresh = [], list(messages)
        for message in fresh:
            self._withdraw_older(message)
        unread = self._unread()
        for message in fresh:
            ids.append(self._numbers.give(message))
            shell = self._outboxes.put(message.content, unread)
            unread.add(shell.segment)
            self._worker_of[message.metadata.dst_node_id].waiting.append(
                _Instruction(message, shell)
            )
        for worker in self._workers:
            self._feed(worker)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait until one of these is answered, a second at most; return what is there."""
        wanted, until = list(message_ids), time.monotonic() + POLL_SECONDS
        while not any(i in self._held for i in wanted) and self._is_expected(wanted):
            self._receive(wanted)
            if time.monotonic() >= until:
                break
        return [self._held.pop(i) for i in wanted if i in self._held]

    def close(self) -> None:
        """Stop the workers and free the shared memory."""
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
            worker.inbox.close()
        self._workers.clear()
        self._outboxes.close()

    def _unread(self) -> set[str]:
        """Return the segments that a worker may still read: its queue can be rounds behind."""
        instructions = (
            instruction for w in self._workers for instruction in (*w.waiting, *w.sent.values())
        )
        return {instruction.shell.segment for instruction in instructions}

    def _withdraw_older(self, message: Message) -> None:
        worker = self._worker_of[message.metadata.dst_node_id]
        for instruction in [o for o in worker.waiting if o.is_replaced_by(message)]:
            worker.waiting.remove(instruction)
            self._held[instruction.message.metadata.message_id] = withdrawn(instruction.message)

    def _is_expected(self, wanted: Sequence[str]) -> bool:
        queued = {o.message.metadata.message_id for w in self._workers for o in w.waiting}
        sent = {message_id for w in self._workers for message_id in w.sent}
        return any(i in queued or i in sent for i in wanted)

    def _receive(self, wanted: Sequence[str]) -> None:
        """Wait for answers and take them in, in memory's bounds."""
        held = sum(_size(message) for message in self._held.values())
        full = held > HELD_BYTES
        listened = [
            w for w in self._workers if w.sent and not (full and not w.sent.keys() & wanted)
        ]
        ready = wait([worker.pipe for worker in listened], timeout=POLL_SECONDS)
        for worker in listened:
            if worker.pipe in ready:
                self._take(worker)

    def _take(self, worker: _Worker) -> None:
        try:
            reply = worker.pipe.recv()
        except (EOFError, OSError):
            reply = None
        if not isinstance(reply, Reply):
            self._replace(worker)
            return
        content = worker.inbox.take(reply.shell) if reply.shell is not None else None
        with suppress(OSError):
            worker.pipe.send("free")
        worker.sent.pop(reply.message_id, None)
        self._held[reply.message_id] = rebuild(reply.metadata, content, reply.error)
        self._feed(worker)

    def _feed(self, worker: _Worker) -> None:
        while worker.waiting and len(worker.sent) < AHEAD:
            instruction = worker.waiting.popleft()
            worker.sent[instruction.message.metadata.message_id] = instruction
            with suppress(OSError):  # that a worker is dead is noticed when its reply is awaited
                worker.pipe.send(Request(instruction.message.metadata, instruction.shell))

    def _replace(self, worker: _Worker) -> None:
        """A worker died: its work in hand is lost, its sites get a new one."""
        for message_id, instruction in worker.sent.items():
            error = Error(CLIENT_APP_RAISED, "the worker process ended (out of memory?)")
            self._held[message_id] = Message(error, reply_to=instruction.message)
        worker.process.join(timeout=1)
        fresh = self._start(worker.contexts)
        worker.process, worker.pipe, worker.inbox = fresh.process, fresh.pipe, fresh.inbox
        worker.sent.clear()
        self._feed(worker)

    def _start(self, contexts: dict[int, Context]) -> _Worker:
        context = self._start_context
        ours, theirs = context.Pipe()
        process = start(context, work, (theirs, self._app, contexts, self._plan.threads))
        theirs.close()
        return _Worker(process, ours, contexts)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """How many workers, of which kind.

    Attributes:
        devices: One entry a worker, e.g. ``("cpu", "cpu")`` or ``("cuda:0", "cuda:1")``.
        threads: Threads of torch in each.
        load: Relative work of a node, by node id; heavy ones are spread first.
    """

    devices: tuple[str, ...]
    threads: int = 1
    load: Mapping[int, int] = field(default_factory=dict)

    def divide(self, contexts: Mapping[int, Context]) -> list[dict[int, Context]]:
        """Return each worker's sites: longest first to the least loaded (Graham 1969)."""
        shares: list[dict[int, Context]] = [{} for _ in self.devices]
        loads = [0] * len(self.devices)
        for node in sorted(contexts, key=lambda n: (-self.load.get(n, 1), n)):
            lightest = loads.index(min(loads))
            loads[lightest] += self.load.get(node, 1)
            context = contexts[node]
            context.node_config["device"] = self.devices[lightest]
            shares[lightest][node] = context
        return shares


@contextmanager
def _frozen_objects(context: "StartContext") -> Iterator[None]:
    """Keep what the workers share from being written to, and so copied, by garbage collectors."""
    if not is_forked(context):
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # in this process, which goes on


def _size(message: Message) -> int:
    if not message.has_content():
        return 0
    return array_bytes(message.content)
