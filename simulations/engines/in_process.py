"""The Grid that runs the two Flower apps in one process: no sockets, no Ray.

A Grid is Flower's word for the server's way to its sites. This one runs the very ClientApp that a
hospital runs, over site folders of this machine.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from wardround.common.errors import describe_defect
from wardround.common.flower.site_grid import MessageNumbers, SiteGrid, begin_local_run
from wardround.common.runtime.seeds import derive_seed
from wardround.common.runtime.system.signals import raise_if_ctrl_c

logger = logging.getLogger(__name__)
CLIENT_APP_RAISED = 2  # the code that Flower gives a ClientApp's exception
# Is told of a message before it is worked on, and of those that wait.
BeforeWork = Callable[[Message, Sequence[Message]], None]


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


class InProcessGrid(SiteGrid):
    """Runs each site's work in this process, when its reply is pulled.

    Working at the pull rather than at the push keeps one reply in memory at a time.
    """

    def __init__(
        self,
        app: ClientApp,
        contexts: Mapping[int, Context],
        run_id: int,
        before: BeforeWork | None = None,
    ) -> None:
        super().__init__(begin_local_run(run_id))
        self._app = app
        self._before = before
        self._contexts = dict(contexts)
        self._numbers = MessageNumbers()
        self._waiting: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages for the sites."""
        ids = []
        for message in messages:
            message_id = self._numbers.give(message)
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Do the work of the first of these messages that waits, and return its reply."""
        for message_id in message_ids:
            if message_id in self._waiting:
                return [self._work(self._waiting.pop(message_id))]
        return []

    def _work(self, message: Message) -> Message:
        if self._before is not None:
            self._before(message, list(self._waiting.values()))
        return run_client(self._app, message, self._contexts[message.metadata.dst_node_id])


def run_client(app: ClientApp, message: Message, context: Context) -> Message:
    """Return a site's reply; an exception becomes an error answer, its text stays in the log."""
    try:
        return app(message, context)
    except Exception as error:  # a site that fails must not end the run
        raise_if_ctrl_c(error)
        logger.exception("site=%s failed", Path(str(context.node_config["site"])).name)
        reason = f"{describe_defect(error)}: please report it"
        return Message(Error(CLIENT_APP_RAISED, reason), reply_to=message)
