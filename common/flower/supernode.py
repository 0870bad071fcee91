"""A site's seat at a SuperLink: orders come in as files, answers go out from files.

Flower's own SuperNode opens a port, fetches a run's code and starts a process for each message.
This one does none of that: it dials out, takes the study from the run's configuration, and leaves
the work to whoever calls it. It asks for a run's code at no time.

Whoever joins anew has lost what its earlier process was at: the server's link then sends that
again, and hands out again what was not confirmed.

Written against Flower 1.41; ``tests/unit/test_flower_supernode.py`` holds the contract.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import is_valid_sha256_hash
from flwr.supernode.fleet_http_client import FleetHttpClient

from wardround.common.flower.fleet import STILL_CONNECTED, FleetError, FleetLink, RunEndedError
from wardround.common.flower.parcels import Envelope, Parcel, ParcelWriter
from wardround.common.key_pair import public_pem
from wardround.common.private_files import replace_file

# The server counts a site as gone after twice this; Flower's own is 30.
HEARTBEAT_SECONDS = 15.0
BEAT_SECONDS = 5.0
MOST_OBJECTS = 100_000
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.25, 10.0
_OBJECT_WAIT_SECONDS, _OBJECT_PATIENCE = 0.1, 600
_PUSHES = 5
_HEADS_BYTES = 2**20  # what may travel beside the arrays
_NODE_FILE = "node"

_Result = TypeVar("_Result")


class StoppedError(Exception):
    """The site was told to stop while it waited for the server."""


class TooLargeError(Exception):
    """A message holds more than may be taken in."""


class LostError(Exception):
    """The server no longer has what belongs to a message."""


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
                answer = self._link.call(lambda client: client.ActivateNode(request))
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
        if answer.node_id != self.node_id:
            self._node = Node(node_id=answer.node_id)
            replace_file(self._file, str(answer.node_id).encode())
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
            answer = self._link.call(lambda client: client.PullMessages(request))
        except (FleetError, RunEndedError) as error:
            self._wait(error.code if isinstance(error, FleetError) else "refused")
            return None
        self._succeed()
        if not answer.messages_list or not answer.message_object_trees:
            return None
        return Envelope(answer.messages_list[0], answer.message_object_trees[0])

    def study_of(self, run_id: int) -> str:
        """Return the study of a run as JSON; empty if the run names none.

        Raises:
            RunEndedError: The run is over.
        """
        request = GetRunRequest(node=self._node, run_id=run_id)
        answer = self._insist(lambda client: client.GetRun(request))
        return str(run_from_proto(answer.run).override_config.get("study", ""))

    def fetch(self, envelope: Envelope, path: Path, limit: int) -> None:
        """Write a message with all its objects to a file.

        Args:
            limit: The most bytes that it may have.

        Raises:
            TooLargeError: It has more; the rest is left with the server.
            LostError: The server has not got all of it.
            RunEndedError: The run is over.
            OSError: The disk is full, say.
        """
        writer = ParcelWriter(path, envelope)
        try:
            self._fetch_objects(envelope, writer, limit + _HEADS_BYTES)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        self.confirm(envelope)

    def confirm(self, envelope: Envelope) -> None:
        """Let the server drop what it kept of a message for this site."""
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=envelope.run_id, message_object_id=envelope.message_id
        )
        self._insist(lambda client: client.ConfirmMessageReceived(request))

    def push(self, path: Path, seconds: float) -> None:
        """Send the answer in a file, without what the server has of it already.

        Args:
            seconds: How long the work took.

        Raises:
            ModelError: The file is not whole.
            RunEndedError: The run is over.
            LostError: The server does not take it.
        """
        with Parcel(path) as parcel:
            self._send(parcel.envelope, parcel.content, seconds)

    def excuse(self, envelope: Envelope) -> None:
        """Answer that a message did not arrive: the server sends it again if it still wants it."""
        self._send_error(envelope, ErrorCode.NODE_UNAVAILABLE, "away")

    def fail(self, envelope: Envelope, code: str) -> None:
        """Answer with a word, where not even a refusal can be written down."""
        self._send_error(envelope, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, code)

    def leave(self) -> None:
        """Tell the server that the site goes; it is tried once."""
        self._gone.set()
        if not self._must_join:
            self._deactivate()
        self._link.close()

    def _send_error(self, envelope: Envelope, code: int, reason: str) -> None:
        reply = Message(Error(code, reason), reply_to=envelope.opened())
        reply.metadata.__dict__["_message_id"] = reply.object_id
        answer = Envelope(message_to_proto(reply), ObjectTree(object_id=reply.object_id))
        self._send(answer, lambda object_id: reply.deflate(), 0.0)

    def _send(self, envelope: Envelope, content: Callable[[str], bytes], seconds: float) -> None:
        for _ in range(_PUSHES):
            if self._send_once(envelope, content, seconds):
                return
        msg = "the server does not keep the answer"
        raise LostError(msg)

    def _send_once(
        self, envelope: Envelope, content: Callable[[str], bytes], seconds: float
    ) -> bool:
        """Return whether the server has all of an answer; if not, it is offered again."""
        offer = PushMessagesRequest(
            node=self._node,
            messages_list=[envelope.message],
            message_object_trees=[envelope.tree],
            clientapp_runtime_list=[seconds],
        )
        answer = self._insist(lambda client: client.PushMessages(offer))
        wanted = set(answer.objects_to_push)
        for object_id in envelope.object_ids:
            if object_id in wanted and not self._send_object(
                envelope.run_id, answer.session_id, object_id, content(object_id)
            ):
                return False
        return True

    def _send_object(self, run_id: int, session: str, object_id: str, content: bytes) -> bool:
        request = PushObjectRequest(
            node=self._node,
            run_id=run_id,
            session_id=session,
            object_id=object_id,
            object_content=content,
        )
        return bool(self._insist(lambda client: client.PushObject(request)).stored)

    def _fetch_objects(self, envelope: Envelope, writer: ParcelWriter, limit: int) -> None:
        object_ids, total = envelope.object_ids, 0
        if len(object_ids) > MOST_OBJECTS:
            raise TooLargeError
        for object_id in object_ids:
            content = self._fetch_object(envelope.run_id, object_id)
            total += len(content)
            if total > limit:
                raise TooLargeError
            writer.add(object_id, content)

    def _fetch_object(self, run_id: int, object_id: str) -> bytes:
        """Return an object; one that is still on its way to the server is waited for."""
        if not is_valid_sha256_hash(object_id):
            msg = "an object without a valid name"
            raise LostError(msg)
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        for _ in range(_OBJECT_PATIENCE):
            answer = self._insist(lambda client: client.PullObject(request))
            if answer.object_available:
                return bytes(answer.object_content)
            if not answer.object_found:
                break
            if self._stop.wait(_OBJECT_WAIT_SECONDS):
                raise StoppedError
        msg = "the server has not got an object of its message"
        raise LostError(msg)

    def _insist(self, ask: Callable[[FleetHttpClient], _Result]) -> _Result:
        """Ask until the server answers."""
        while True:
            try:
                answer = self._link.call(ask)
            except FleetError as error:
                self._wait(error.code)
                continue
            self._succeed()
            return answer

    def _succeed(self) -> None:
        self._failures = 0
        self._heard("")

    def _wait(self, code: str) -> None:
        """Wait before the next try: twice as long each time, and not in step with other sites."""
        self._heard(code)
        longest = min(_FIRST_WAIT_SECONDS * 2.0 ** min(self._failures, 10), _LONGEST_WAIT_SECONDS)
        self._failures += 1
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
