"""The aggregation server: rounds, strategies, checkpoints."""

from typing import TYPE_CHECKING

from wardround.common.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from wardround.server.app import make_server_app
    from wardround.server.checkpoints.history import RoundRecord, read_records
    from wardround.server.checkpoints.store import CheckpointStore
    from wardround.server.identity.invitations import invite
    from wardround.server.service.installation import init_server

__all__ = [
    "CheckpointStore",
    "RoundRecord",
    "init_server",
    "invite",
    "make_server_app",
    "read_records",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CheckpointStore": "wardround.server.checkpoints.store",
        "RoundRecord": "wardround.server.checkpoints.history",
        "init_server": "wardround.server.service.installation",
        "invite": "wardround.server.identity.invitations",
        "make_server_app": "wardround.server.app",
        "read_records": "wardround.server.checkpoints.history",
    },
)
