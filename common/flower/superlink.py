"""Flower's SuperLink inside a process of ours: its HTTP app, over the link's state.

The app serves every API of Flower to whoever reaches it. It is never put on a port by itself: the
server's gates pass the Fleet API to hospitals and the rest to the server's own processes.

Written against Flower 1.41; ``tests/unit/test_flower_superlink.py`` holds the contract.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLWR_IN_MEMORY_DB_NAME
from flwr.superlink import main as superlink
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig

from wardround.common.flower.link_state import LinkState

Scope: TypeAlias = MutableMapping[str, Any]  # as ASGI has it
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

NODE_KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
# What a site needs; nodes are entered on the roll when they join, and never by themselves.
FLEET_PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
# What the server's own process for a study needs.
RUNTIME_PATHS = frozenset(
    f"/v1/{name}"
    for name in (
        "control/start-run",
        "runtime/acquire-task",
        "runtime/pull-task-input",
        "runtime/push-task-output",
        "runtime/send-task-heartbeat",
        "runtime/get-nodes",
        "runtime/push-messages",
        "runtime/pull-messages",
        "runtime/push-object",
        "runtime/pull-object",
        "runtime/confirm-message-received",
    )
)


def make_link(state: LinkState) -> AsgiApp:
    """Return Flower's app over a state; nothing is started beside it, and no database made."""
    app = superlink.create_app(_configuration(), SuperLinkLifespan)
    app.state.linkstate_factory.state_instance = state
    app.state.linkstate_factory.objectstore_factory.store_instance = state.object_store
    return app


def _configuration() -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=True,  # the listeners, and with them TLS, are ours
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
