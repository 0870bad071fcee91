"""Grids that run the two Flower apps on one machine: no sockets, no Ray.

A Grid is Flower's word for the server's way to its sites. These run the very ClientApp that a
hospital runs, over site folders of this machine.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from wardround.common.flower.local import Run, claim_identity, empty_run, stamp
from wardround.common.runtime.seeds import derive_seed

logger = logging.getLogger(__name__)
CLIENT_APP_RAISED = 2  # the code that Flower gives a ClientApp's exception


def site_contexts(
    folders: Sequence[Path], study_json: str, device: str, run_id: int
) -> dict[int, Context]:
    """Return one context a site, keyed by a node id that depends on the site's folder name."""
    contexts = {}
    for folder in folders:
        node_id = derive_seed("node", folder.name)
        node_config: dict[str, bool | float | int | str] = {
            "site": str(folder),
            "device": device,
            "explain-refusals": True,
        }
        contexts[node_id] = Context(
            run_id, node_id, node_config, RecordDict(), {"study": study_json}, 1
        )
    return contexts


class LocalGrid(Grid):
    """What the grids of one machine share: the sites' contexts and the numbering of messages."""

    def __init__(self, contexts: Mapping[int, Context], run_id: int) -> None:
        self._contexts = dict(contexts)
        self._run = empty_run(run_id)
        self._sent = 0
        claim_identity(run_id)

    def set_run(self, run: Run) -> None:
        """Set the run this grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message for a site."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""
        return list(self._contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull each; nothing is late on one machine, so ``timeout`` is not needed."""
        ids = self.push_messages(messages)
        return [reply for message_id in ids for reply in self.pull_messages([message_id])]

    def close(self) -> None:
        """Free what the grid holds."""

    def _number(self, message: Message) -> str:
        self._sent += 1
        message_id = f"message-{self._sent}"
        stamp(message, message_id)
        return message_id


class InProcessGrid(LocalGrid):
    """Runs each site's work in this process, when its answer is pulled.

    Working at the pull rather than at the push keeps one answer in memory at a time.
    """

    def __init__(self, app: ClientApp, contexts: Mapping[int, Context], run_id: int) -> None:
        super().__init__(contexts, run_id)
        self._app = app
        self._waiting: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages for the sites."""
        ids = []
        for message in messages:
            message_id = self._number(message)
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Do the work of the first of these messages that waits, and return its answer."""
        for message_id in message_ids:
            if message_id in self._waiting:
                return [self._work(self._waiting.pop(message_id))]
        return []

    def _work(self, message: Message) -> Message:
        return run_client(self._app, message, self._contexts[message.metadata.dst_node_id])


def run_client(app: ClientApp, message: Message, context: Context) -> Message:
    """Return a site's answer; an exception becomes an error answer, its text stays in the log."""
    try:
        return app(message, context)
    except Exception as error:  # a site that fails must not end the run
        logger.exception("site=%s failed", Path(str(context.node_config["site"])).name)
        reason = f"{type(error).__name__} in the site's work, see the log"
        return Message(Error(CLIENT_APP_RAISED, reason), reply_to=message)
