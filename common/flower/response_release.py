"""Letting go of what a response held as soon as it has been read.

httpx ties a response and its stream into a ring, which only Python's garbage collector undoes, and
that counts objects and not bytes: a site's daemon that had carried 200 MB models for four rounds
held 1.4 GB of requests and responses that were long done with.

Written against Flower 1.41 and httpx 0.28;
``tests/unit/common/flower/supernode/test_connection.py``
holds the contract.
"""

import httpx
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext


class Releasing:
    """Unties each response; to be the first of a client's interceptors."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Return the response with its body read and its stream gone."""
        response = call_next(context)
        response.read()
        response.stream = httpx.ByteStream(b"")
        return response
