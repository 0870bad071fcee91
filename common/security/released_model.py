"""What a site asks its server for when it fetches a finished model, and what stands beside it.

``GET /wardround/models/DIGEST``, with the 64 digits of a study's digest, over the TLS connection
of a member. The answer's body is the file of the model; its header says the rest. A site that took
no part is told the same as where there is no such model. With ``/now`` behind the digest it is the
last model of a run that is not over, for a site that the run is for: it would be sent that model in
the next round, and may look at it before it decides.
"""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.runtime.fields import OfForm

MODELS_PREFIX = "/wardround/models/"
NOW = "/now"
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


def models_path(digest: str, now: bool = False) -> str:
    """Return where the model of a study is asked for; as it is now, or that of a finished run."""
    return f"{MODELS_PREFIX}{digest}{NOW * now}"


def asked_study(path: str) -> tuple[str, bool] | None:
    """Return the digest in such a path, and whether the present model is asked for.

    None where the path holds anything else.
    """
    rest = path.removeprefix(MODELS_PREFIX)
    digest = rest.removesuffix(NOW)
    return (digest, digest != rest) if path != rest and _DIGEST.fullmatch(digest) else None
