"""A Fleet API in memory, which notes what a site asks of it."""

import threading

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import (  # noqa: TID251 - this test is the contract with them
    ActivateNodeResponse,
    PullMessagesResponse,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse  # noqa: TID251
from flwr.proto.message_pb2 import (  # noqa: TID251
    ConfirmMessageReceivedResponse,
    PullObjectResponse,
    PushObjectResponse,
)


class Fleet:
    """A Fleet API in memory; it stands where Flower's client would."""

    def __init__(self) -> None:
        self.node_key = ec.generate_private_key(ec.SECP384R1()).public_key()
        self.refusals: list[Exception] = []
        self.called: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.taken: dict[str, bytes] = {}
        self.wanted: list[set[str]] = []
        self.room: list[int] = []  # how many objects each session takes; then any number
        self._left = -1
        self._lock = threading.Lock()
        self.pushed: list[object] = []

    def call(self, ask):  # type: ignore[no-untyped-def]
        return ask(self)

    def close(self) -> None:
        self.called.append("close")

    def _note(self, name: str) -> None:
        self.called.append(name)
        if self.refusals and name != "DeactivateNode":
            raise self.refusals.pop(0)

    def ActivateNode(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("ActivateNode")
        assert request.public_key.startswith(b"-----BEGIN PUBLIC KEY-----")
        return ActivateNodeResponse(node_id=42)

    def DeactivateNode(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("DeactivateNode")
        assert request.node_id == 42

    def SendNodeHeartbeat(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        assert request.node.node_id == 42
        return SendNodeHeartbeatResponse(success=True)

    def GetRun(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        assert request.node.node_id == 42
        self._note("GetRun")

    def PullMessages(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PullMessages")
        return PullMessagesResponse()

    def PullObject(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PullObject")
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None,
            object_available=bool(content),
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("ConfirmMessageReceived")
        return ConfirmMessageReceivedResponse()

    def PushMessages(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PushMessages")
        self.pushed.append(request.messages_list[0])
        # As a server does, it wants nothing that it has: of two objects that are under way either
        # may come first.
        wanted = (self.wanted.pop(0) if self.wanted else set()) - self.taken.keys()
        self._left = self.room.pop(0) if self.room else -1
        return PushMessagesResponse(objects_to_push=sorted(wanted), session_id="s")

    def PushObject(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PushObject")
        with self._lock:
            stored = self._left != 0
            self._left -= stored
        if stored:
            self.taken[request.object_id] = request.object_content
        return PushObjectResponse(stored=stored)
