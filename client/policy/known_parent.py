"""Whether the model that a study goes on from is one that this site was sent in that study."""

from pathlib import Path

from wardround.client.policy.received_models import received_models
from wardround.client.policy.rules import PARENT_RULE, DeniedError
from wardround.common.study.study import Study

_SHOWN = 12  # digits that a person compares
_ASKED = 16  # digits that a command takes


def require_known_parent(folder: Path, study: Study) -> None:
    """Check a study that goes on from one in which this site took part.

    A site that had no part in it knows no model of it: the hospital's approval is of the digest,
    which covers the model's hash, and the weights have to have that.

    Args:
        folder: The site's.

    Raises:
        DeniedError: The study names a model that this site was never sent there.
        RunError: What it was sent cannot be read.
    """
    held = study.continual
    if held is None or held.parent is None or held.model is None:
        return
    known = received_models(folder, held.parent)
    if known and held.model not in known:
        msg = (
            f"the study says that it goes on from the model {held.model[:_SHOWN]}... of study "
            f"{held.parent[:_SHOWN]}, and none of the {len(known)} models that this site was sent "
            "there is that one: ask whoever wrote the study which run it goes on from. A last "
            "model that no round sent is known here once it is fetched: 'wardround site model "
            f"{held.parent[:_ASKED]}'."
        )
        raise DeniedError(msg, (PARENT_RULE,), study.digest)
