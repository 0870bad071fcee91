"""The worker of a pool: a process that answers for its sites until the server is gone."""

import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

import torch
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from wardround.common.flower.site_grid import rebuild
from wardround.common.runtime.system.signals import leave_signals_to_parent
from wardround.simulations.engines.in_process import CLIENT_APP_RAISED, run_client
from wardround.simulations.engines.shared_memory import Inbox, Outbox, Shell

Pipe: TypeAlias = "Connection[object, object]"


@dataclass(frozen=True, slots=True)
class Request:
    """A message for a site, its arrays in the server's segment."""

    metadata: Metadata
    shell: Shell


@dataclass(frozen=True, slots=True)
class Reply:
    """What a site answered, its arrays in the worker's segment."""

    message_id: str
    metadata: Metadata
    shell: Shell | None
    error: Error | None


def work(
    pipe: Pipe,
    app: ClientApp,
    contexts: Mapping[int, Context],
    threads: int,
) -> None:
    """Answer requests until told to stop or until the server is gone."""
    is_at_work = threading.Event()
    is_at_work.set()

    def leave() -> None:
        if is_at_work.is_set():  # else it is leaving, and must not be interrupted in that
            raise KeyboardInterrupt

    leave_signals_to_parent(leave)
    with suppress(KeyboardInterrupt):
        try:
            torch.set_num_threads(threads)
            _answer(pipe, app, contexts)
        finally:
            is_at_work.clear()


def _answer(pipe: Pipe, app: ClientApp, contexts: Mapping[int, Context]) -> None:
    inbox, outbox, requests = Inbox(), Outbox(), deque[Request]()
    is_free = True
    try:
        while True:
            while not requests:
                is_free |= _receive(pipe, requests)
            request = requests.popleft()
            reply = answer_request(app, contexts, inbox, request)
            while not is_free:
                is_free |= _receive(pipe, requests)
            shell = outbox.put(reply.content) if reply.has_content() else None
            error = reply.error if reply.has_error() else None
            pipe.send(Reply(request.metadata.message_id, reply.metadata, shell, error))
            is_free = False
    except (EOFError, OSError, StopIteration):
        pass
    finally:
        inbox.close()
        outbox.close()


def _receive(pipe: Pipe, requests: deque[Request]) -> bool:
    """Take one word from the server; return whether it freed the outbox."""
    word = pipe.recv()
    if word is None:
        raise StopIteration
    if isinstance(word, Request):
        requests.append(word)
        return False
    return True


def answer_request(
    app: ClientApp, contexts: Mapping[int, Context], inbox: Inbox, request: Request
) -> Message:
    """Have the request's site answer; what was overwritten meanwhile is refused."""
    content = inbox.take(request.shell, keep=True)
    if content is None:
        return withdrawn(rebuild(request.metadata, RecordDict(), None))
    message = rebuild(request.metadata, content, None)
    return run_client(app, message, contexts[request.metadata.dst_node_id])


def withdrawn(instruction: Message) -> Message:
    """Return the reply to an instruction that nobody waits for any more."""
    return Message(Error(CLIENT_APP_RAISED, "the order was withdrawn"), reply_to=instruction)
