"""What a site asks its server for when it fetches a finished model, and what stands beside it.

``GET /wardround/models/DIGEST``, with the 64 digits of a study's digest, over the TLS connection
of a member. The answer's body is the file of the model; its header says the rest. A site that took
no part is told the same as where there is no such model.
"""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.runtime.fields import OfForm

MODELS_PREFIX = "/wardround/models/"
RELEASE_HEADER = "x-wardround-model"
LARGEST_HEADER = 2_048  # characters
_DIGEST = re.compile("[0-9a-f]{64}")
Digest = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]
Count = Annotated[int, Field(ge=0, le=10**9)]


class ReleasedModel(BaseModel):
    """What a server says of a model that it gives.

    Attributes:
        run: Of the server.
        model: Digest over names, shapes, types and values.
        round: After which it was made.
        sites: How many took part; not which.
        bytes: Of its file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[str, Field(min_length=1, max_length=256)]
    model: Digest
    round: Count
    sites: Count
    bytes: Annotated[int, Field(ge=1, le=10**12)]


def models_path(digest: str) -> str:
    """Return where the model of a study is asked for."""
    return f"{MODELS_PREFIX}{digest}"


def asked_study(path: str) -> str | None:
    """Return the digest in such a path; None where it holds anything else."""
    rest = path.removeprefix(MODELS_PREFIX)
    return rest if path != rest and _DIGEST.fullmatch(rest) else None
