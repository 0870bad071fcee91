"""A site's seat at a SuperLink: orders come in as files, answers go out from files.

Flower's own SuperNode opens a port, fetches a run's code and starts a process for each message.
This one does none of that: it dials out, takes the study from the run's configuration, and leaves
the work to whoever calls it. It asks for a run's code at no time.

Whoever joins anew has lost what its earlier process was at: the server's link then sends that
again, and hands out again what was not confirmed.

Written against Flower 1.41; ``tests/unit/common/flower/supernode`` holds the contract.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from flwr.common.serde import run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supernode.fleet_http_client import FleetHttpClient

from wardround.common.files.atomic import replace_file
from wardround.common.flower.messages.envelope import Envelope
from wardround.common.flower.supernode.fleet_client import (
    STILL_CONNECTED,
    FleetError,
    FleetLink,
    RunEndedError,
)
from wardround.common.flower.supernode.transfers import StoppedError, Transfers
from wardround.common.security.tls_key_pair import public_pem

# The server counts a site as gone after twice this; Flower's own is 30.
HEARTBEAT_SECONDS = 15.0
BEAT_SECONDS = 5.0
# Doubled at each failure, drawn at random so that sites do not return at once.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.25, 10.0
_NODE_FILE = "node"

_Result = TypeVar("_Result")


class SuperNode:
    """One site, as the SuperLink knows it.

    Args:
        link: The connection.
        folder: Where the site keeps which node it is; it must be there.
        stop: Ends every wait for the server.
        heard: Told "" when the server answers, a key of FLEET_CODES when it does not.
    """

    def __init__(
        self, link: FleetLink, folder: Path, stop: threading.Event, heard: Callable[[str], None]
    ) -> None:
        self._link = link
        self._file = folder / _NODE_FILE
        self._stop = stop
        self.transfers = Transfers(lambda: self._node, self._insist, stop)
        self._heard = heard
        self._node = Node(node_id=_read_number(self._file))
        self._must_join = True
        self._failures = 0
        self._gone = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, daemon=True)

    @property
    def node_id(self) -> int:
        """Flower's number of this site; 0 before it has ever joined."""
        return int(self._node.node_id)

    def join(self) -> None:
        """Tell the server that the site is here; wait until it agrees.

        After a kill -9 the server still counts the old connection, for up to 30 seconds. Who knows
        its node ends that connection first.

        Raises:
            StoppedError: It was told to stop.
        """
        request = ActivateNodeRequest(
            public_key=public_pem(self._link.node_key), heartbeat_interval=HEARTBEAT_SECONDS
        )
        is_ended = False
        while True:
            try:
                reply = self._link.call(lambda client: client.ActivateNode(request))
                break
            except (FleetError, RunEndedError) as error:
                code = error.code if isinstance(error, FleetError) else "refused"
                if code == STILL_CONNECTED and self.node_id and not is_ended:
                    is_ended = True
                    self._deactivate()
                    continue
                self._wait(code)
        self._succeed()
        self._must_join = False
        if reply.node_id != self.node_id:
            self._node = Node(node_id=reply.node_id)
            replace_file(self._file, str(reply.node_id).encode())
        if not self._heartbeat.is_alive():
            self._heartbeat.start()

    def pull(self) -> Envelope | None:
        """Return what the server asks next, None if there is nothing.

        Raises:
            StoppedError: It was told to stop.
        """
        if self._must_join:
            self.join()
        request = PullMessagesRequest(node=self._node)
        try:
            reply = self._link.call(lambda client: client.PullMessages(request))
        except (FleetError, RunEndedError) as error:
            self._wait(error.code if isinstance(error, FleetError) else "refused")
            return None
        self._succeed()
        if not reply.messages_list or not reply.message_object_trees:
            return None
        return Envelope(reply.messages_list[0], reply.message_object_trees[0])

    def study_of(self, run_id: int) -> str:
        """Return the study of a run as JSON; empty if the run names none.

        Raises:
            RunEndedError: The run is over.
        """
        request = GetRunRequest(node=self._node, run_id=run_id)
        reply = self._insist(lambda client: client.GetRun(request))
        return str(run_from_proto(reply.run).override_config.get("study", ""))

    @contextmanager
    def working_for(self, run_id: int) -> Iterator[Callable[[], bool]]:
        """Have the server asked every few seconds whether it still wants anything of a run.

        Yields:
            Whether it has said that it does not.
        """
        over, withdrawn = threading.Event(), threading.Event()

        def ask() -> None:
            while not over.wait(BEAT_SECONDS) and not withdrawn.is_set():
                if self._is_withdrawn(run_id):
                    withdrawn.set()

        # Not the heartbeat's thread: what the server is slow to say here must not delay that.
        threading.Thread(target=ask, daemon=True).start()
        try:
            yield withdrawn.is_set
        finally:
            over.set()

    def leave(self) -> None:
        """Tell the server that the site goes; it is tried once."""
        self._gone.set()
        if not self._must_join:
            self._deactivate()
        self._link.close()

    def _insist(self, ask: Callable[[FleetHttpClient], _Result]) -> _Result:
        """Ask until the server answers; several threads may, each at its own pace."""
        failures = 0
        while True:
            try:
                reply = self._link.call(ask)
            except FleetError as error:
                self._pause(error.code, failures)
                failures += 1
                continue
            self._succeed()
            return reply

    def _succeed(self) -> None:
        self._failures = 0
        self._heard("")

    def _wait(self, code: str) -> None:
        """Wait before the next try."""
        self._pause(code, self._failures)
        self._failures += 1

    def _pause(self, code: str, failures: int) -> None:
        """Wait: twice as long each time, and not in step with other sites."""
        self._heard(code)
        longest = min(_FIRST_WAIT_SECONDS * 2.0 ** min(failures, 10), _LONGEST_WAIT_SECONDS)
        if self._stop.wait(longest * random.uniform(0.7, 1.0)):
            raise StoppedError

    def _deactivate(self) -> None:
        request = DeactivateNodeRequest(node_id=self.node_id)
        try:
            self._link.call(lambda client: client.DeactivateNode(request))
        except (FleetError, RunEndedError):
            return

    def _beat(self) -> None:
        """Say every few seconds that the site is there, whatever it works on."""
        while not self._gone.wait(BEAT_SECONDS):
            if not self._is_known():
                self._must_join = True

    def _is_withdrawn(self, run_id: int) -> bool:
        """Return whether a run has come to its end; a server that does not answer says nothing."""
        request = GetRunRequest(node=self._node, run_id=run_id)
        try:
            self._link.call(lambda client: client.GetRun(request))
        except RunEndedError as ended:
            return ended.is_withdrawn
        except FleetError:
            return False
        return False

    def _is_known(self) -> bool:
        """Return whether the server knows the site; a server that does not answer says nothing."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_SECONDS)
        try:
            return bool(self._link.call(lambda client: client.SendNodeHeartbeat(request)).success)
        except (FleetError, RunEndedError):
            return True


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
