"""What the codes of Flower's error replies mean."""

from flwr.common.constant import ErrorCode

# The site was not reached, so that the same message may be sent again.
_TRANSIENT = frozenset(
    {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
    }
)


def is_transient(code: int) -> bool:
    """Return whether an error says that the site was away, not that its work failed."""
    return code in _TRANSIENT
