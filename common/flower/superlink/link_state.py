"""What the server's link knows, in memory: nodes, runs, and the post between them.

Flower's own in-memory state, with these differences. A node is whom the roll of members says, and
its number follows from its key, so that a site goes on when the link was restarted. A message that
a site took and lost (killed, or cut off before it had all) is reported lost or handed out again,
never silently gone. A reply that has arrived is kept though its site has left since; what is half
there is not shown, and kept for the site's next try. What is done with is removed: a run of a
thousand rounds needs no more memory than one.

Written against Flower 1.41; ``tests/unit/common/flower/superlink`` holds the contract.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flwr.app import Message
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    Status,
    SubStatus,
)
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)
from flwr.supercore.constant import NodeStatus
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.run import RunStatus
from flwr.superlink.federation import NoOpFederationManager

from wardround.common.flower.app_bundle import RUN_KEY
from wardround.common.flower.superlink.node_ids import MemberLookup, node_id_of
from wardround.common.flower.superlink.object_store import DiskObjectStore
from wardround.common.flower.superlink.partial_replies import PartialReplies
from wardround.common.flower.superlink.size_limit import SizeRule, refused_reply

# How many parts a reply may have: so many times those of its instruction, and some more.
_SPARE_PARTS, _PARTS_A_PART = 256, 4
_NEVER = datetime.max.replace(tzinfo=UTC)


class LinkState(InMemoryLinkState):
    """The post office of one link process.

    Args:
        members: Who may connect.
        disk_store: Keeps the parts of messages.
        notify: Told the number of a node or a run for which there may be post.
    """

    def __init__(
        self,
        members: MemberLookup,
        disk_store: DiskObjectStore,
        notify: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(NoOpFederationManager(), disk_store)
        self._members, self._disk_store, self._notify = members, disk_store, notify
        self._partial_replies = PartialReplies(disk_store)
        self._size_rule = SizeRule(disk_store)
        self._lost: set[str] = set()  # orders that their sites took and will not answer
        self._parts: dict[str, int] = {}  # of each instruction
        self._open: dict[str, set[int]] = {}  # whom the messages of a push session are for

    # --- Who is there -----------------------------------------------------------------------

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """Return a member's number; whoever is not on the roll has none."""
        site = self._members.site_of(public_key)
        if site is None:
            return None
        node_id = node_id_of(public_key)
        with self.lock:
            if node_id not in self.nodes:
                self._check(node_id, public_key, site)
        return node_id

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Let a site's new process in, and give up what an earlier one of it had taken."""
        with self.lock:
            if not super().activate_node(node_id, heartbeat_interval):
                return False
            for instruction_id, instruction in self.message_ins_store.items():
                taken = (
                    instruction.metadata.dst_node_id == node_id
                    and instruction.metadata.delivered_at
                )
                if taken and not self._has_whole_reply(instruction_id):
                    self._lost.add(instruction_id)
                    self._notify(instruction.metadata.run_id)
            return True

    def note_presence(self, node_id: int) -> None:
        """Note that a site asks for post: it is there, whatever its heartbeat says."""
        with self.lock:
            node = self.nodes.get(node_id)
            if node is not None and node.status != NodeStatus.ONLINE:
                self.acknowledge_node_heartbeat(node_id, node.heartbeat_interval)

    def connected_sites(self) -> Sequence[NodeInfo]:
        """Return what is known of every node that connected since the link began."""
        return self.get_node_info()

    def _check(self, node_id: int, public_key: bytes, site: str) -> None:
        self.nodes[node_id] = NodeInfo(
            node_id=node_id,
            owner_aid=NOOP_FLWR_AID,
            owner_name=NOOP_ACCOUNT_NAME,
            status=NodeStatus.REGISTERED,
            registered_at=now().isoformat(),
            heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
            public_key=public_key,
            name=site,
        )
        self.node_public_key_to_node_id[public_key] = node_id
        self.owner_to_node_ids.setdefault(NOOP_FLWR_AID, set()).add(node_id)

    # --- Orders to sites --------------------------------------------------------------------

    def get_message_ins(
        self, node_id: int, limit: int | None, *, run_id: int | None = None
    ) -> list[Message]:
        """Hand out what waits for a site and is whole."""
        with self.lock:
            self._check_stored_messages(set(self.message_ins_store))
            self._take_back(node_id)
            waiting = [
                instruction
                for instruction_id, instruction in self.message_ins_store.items()
                if instruction.metadata.dst_node_id == node_id
                and run_id in (None, instruction.metadata.run_id)
                and not instruction.metadata.delivered_at
                and instruction_id not in self._lost
                and self._is_whole(instruction_id)
            ][:limit]
            for instruction in waiting:
                instruction.metadata.delivered_at = now().isoformat()
                self._size_rule.note_instruction(instruction.metadata.message_id)
            return waiting

    def _take_back(self, node_id: int) -> None:
        """Have the site be handed again what it took and never confirmed.

        A site asks for the next message when it has confirmed the last: what is not confirmed by
        then was lost on its way.
        """
        for instruction_id, instruction in self.message_ins_store.items():
            metadata = instruction.metadata
            if metadata.dst_node_id != node_id or not metadata.delivered_at:
                continue
            unconfirmed = instruction_id in self.object_store
            if unconfirmed and instruction_id not in self.message_ins_id_to_message_res_id:
                metadata.delivered_at = ""

    # --- Parts of messages, either way ------------------------------------------------------

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Take a message's outline; a reply far larger than its instruction is refused."""
        metadata = message.metadata
        asked, parts = metadata.reply_to_message_id, _parts_of(object_tree)
        if asked and parts > _SPARE_PARTS + _PARTS_A_PART * self._parts.get(asked, 0):
            return False, []
        with self.lock:
            stored, missing = super().store_message_and_object_tree(
                message, object_tree, session_id
            )
            if not stored:
                return False, []
            if not asked:
                self._parts[metadata.message_id] = parts
            else:
                self._partial_replies.replace(
                    metadata.run_id, metadata.src_node_id, metadata.message_id
                )
            receiver = metadata.run_id if asked else metadata.dst_node_id
            self._open.setdefault(session_id, set()).add(receiver)
            if not missing:
                self._notify(receiver)
            return True, missing

    def start_session(self, run_id: int) -> str:
        """Begin to take objects; it ends when they are there, or with its run.

        Flower's own ends after three silent minutes, and takes what has come with it.
        """
        session_id: str = super().start_session(run_id)
        self._keep_open(session_id)
        return session_id

    def _keep_open(self, session_id: str) -> None:
        session = self._object_push_sessions.get(session_id)
        if session is not None:
            session.expires_at = _NEVER

    def store_object(
        self, run_id: int, session_id: str, object_id: str, object_content: bytes
    ) -> bool:
        """Store a part of a message; the locks are taken in one order everywhere."""
        with self.lock:
            stored = super().store_object(run_id, session_id, object_id, object_content)
            self._keep_open(session_id)
            if session_id not in self._object_push_sessions:
                for receiver in self._open.pop(session_id, ()):
                    self._notify(receiver)
            return stored

    def get_object(self, run_id: int, object_id: str) -> bytes | None:
        """Return a part of a message; the locks are taken in one order everywhere."""
        with self.lock:
            return super().get_object(run_id, object_id)

    def _is_whole(self, message_id: str) -> bool:
        try:
            tree = self.object_store.get_object_tree(message_id)
        except NoObjectInStoreError:
            return False
        return all(self._disk_store.has(part.object_id) for part in iterate_object_tree(tree))

    # --- Answers to the server --------------------------------------------------------------

    def get_message_res(self, message_ids: set[str], run_id: int) -> list[Message]:
        """Return the replies that are whole, and a word for each instruction that gets none.

        Unlike Flower's own: a reply counts though its site has left since, one that is half
        there is not shown, and an instruction that is not known is reported instead of raising.
        """
        found: list[Message] = []
        with self.lock:
            self._check_stored_messages(message_ids, run_id)
            self._check_and_tag_offline_nodes()
            for instruction_id in message_ids:
                reply = self._reply_to(instruction_id, run_id)
                if reply is not None:
                    found.append(reply)
        return found

    def _reply_to(self, instruction_id: str, run_id: int) -> Message | None:
        instruction = self.message_ins_store.get(instruction_id)
        if instruction is None:
            return self._generated(
                create_message_error_unavailable_ins_message(instruction_id, run_id)
            )
        if self._has_whole_reply(instruction_id):
            reply_id = self.message_ins_id_to_message_res_id[instruction_id]
            if self._size_rule.refuses(instruction_id, reply_id):
                return self._generated(refused_reply(instruction))
            reply = self.message_res_store[reply_id]
            reply.metadata.delivered_at = now().isoformat()
            return reply
        node = self.nodes.get(instruction.metadata.dst_node_id)
        if instruction_id in self._lost or node is None or node.status != NodeStatus.ONLINE:
            return self._generated(
                create_message_error_unavailable_res_message(instruction.metadata, "node_unavail")
            )
        return None

    def _generated(self, message: Message) -> Message:
        self._store_generated_message(message)
        return message

    def _has_whole_reply(self, instruction_id: str) -> bool:
        reply_id = self.message_ins_id_to_message_res_id.get(instruction_id)
        return reply_id is not None and self._is_whole(reply_id)

    # --- Runs, and removing what is done with -----------------------------------------------

    def get_run_status(self, run_ids: set[int]) -> dict[int, RunStatus]:
        """Return how runs stand; one that an earlier link knew has ended."""
        gone = RunStatus(Status.FINISHED, SubStatus.FAILED, "")
        return dict.fromkeys(run_ids, gone) | super().get_run_status(run_ids)

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """Remove instructions, their replies, and what nobody will fetch any more."""
        with self.lock:
            for instruction_id in message_ins_ids:
                self._lost.discard(instruction_id)
                self._parts.pop(instruction_id, None)
                self._size_rule.forget(instruction_id)
                if instruction_id in self.message_ins_store:
                    self.object_store.delete(instruction_id)
                self._keep_half(instruction_id)
            super().delete_messages(message_ins_ids)

    def _keep_half(self, instruction_id: str) -> None:
        reply_id = self.message_ins_id_to_message_res_id.get(instruction_id, "")
        reply = self.message_res_store.get(reply_id)
        if reply is not None and not reply.metadata.delivered_at:
            self._partial_replies.keep(reply.metadata.run_id, reply.metadata.src_node_id, reply_id)

    def cleanup_run(self, run_id: int) -> None:
        """Remove all that a run left."""
        super().cleanup_run(run_id)
        self._partial_replies.forget(run_id)

    def create_run(self, *arguments: object, **named: object) -> int:
        """Start a run; one of the same name that is still going has fallen, and ends."""
        run_id: int = super().create_run(*arguments, **named)  # type: ignore[arg-type] # as they are
        if run_id:
            self._end_others(run_id)
        return run_id

    def finish_task(self, task_id: int, sub_status: str, details: str) -> bool:
        """End a task, and with a run's own task remove all that the run left."""
        done = super().finish_task(task_id, sub_status, details)
        task = self.task_store.get(task_id)
        if done and task is not None and self._is_primary_task(task_id):
            self.cleanup_run(task.run_id)
            sessions = self._object_push_sessions
            self._open = {one: whom for one, whom in self._open.items() if one in sessions}
        return done

    def _end_others(self, run_id: int) -> None:
        name = self.run_ids[run_id].run.override_config.get(RUN_KEY)
        for other in self.get_run_info():
            if other.run_id == run_id or other.override_config.get(RUN_KEY) != name:
                continue
            if other.status.status != Status.FINISHED and other.primary_task_id is not None:
                self.finish_task(other.primary_task_id, SubStatus.FAILED, "")
            self.cleanup_run(other.run_id)  # one whose server was killed ended by itself


def _parts_of(tree: ObjectTree) -> int:
    return sum(1 for _ in iterate_object_tree(tree))
