"""The signed record of a model's rounds, held against the weights that it leads to."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.models.model_folder import ModelFolder
from wardround.common.parameters.arithmetic import digest
from wardround.common.runtime.printable import printable
from wardround.common.security.lineage import LINEAGE_FILE
from wardround.common.security.lineage_verification import Lineage, verify_lineage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def model_lineage(model: ModelFolder, weights: Mapping[str, Tensor]) -> Lineage | None:
    """Return what the record of a model says, once it was verified; None where it has none.

    Args:
        weights: The model's, as they were checked against its contract.

    Raises:
        ModelError: The record was changed, has a gap, or does not lead to these weights.
    """
    content, contract = model.lineage, model.contract
    if not content:
        return None
    shared = shared_digest(model, weights)
    return verify_lineage(content, contract.study_digest, shared, contract.round)


def shared_digest(model: ModelFolder, weights: Mapping[str, Tensor]) -> str:
    """Return the digest of what the sites of a model share: what signed records call the model."""
    return digest(_shared(model, weights))


def check_keys(
    lineage: Lineage | None, server: "Ed25519PublicKey | None", site: "Ed25519PublicKey | None"
) -> tuple[str, ...]:
    """Return who signed a model's rounds, in sentences.

    Args:
        server: Must have signed every round, where it is given.
        site: Must have signed a part of one, where it is given.

    Raises:
        ModelError: A key that was given has not.
    """
    if lineage is None:
        if server is not None or site is not None:
            msg = (
                f"the model has no {LINEAGE_FILE}, so nobody has signed its rounds: a simulation "
                "signs none; ask the server's operator for a model that has it."
            )
            raise ModelError(msg)
        return ("its rounds are not signed",)
    return tuple(_words(lineage, _hex(server), _hex(site)))


def _words(lineage: Lineage, server: str, site: str) -> Iterator[str]:
    if server not in ("", lineage.server):
        msg = (
            f"the rounds were signed with another key ({lineage.server[:12]}...) than the server's "
            f"that was given ({server[:12]}...): get the server's public key from its operator."
        )
        raise ModelError(msg)
    if site and site not in lineage.sites:
        msg = (
            f"no round was signed with the site's key that was given ({site[:12]}...): this site "
            "took no part in the model, or has another key now."
        )
        raise ModelError(msg)
    known = "as given" if server else "compare it with that of the server's operator"
    yield f"{lineage.rounds} rounds, signed by the server's key {lineage.server} ({known})"
    for key, rounds in lineage.sites.items():
        own = " (as given)" if key == site else ""
        yield f"site key {key}{own}: signed its part of {len(rounds)} rounds"
    if lineage.unsigned:
        yield f"{lineage.unsigned} updates in the model are signed by no site"
    yield from (f"server: wardround {printable(code, 200)}" for code in lineage.code)


def _hex(key: "Ed25519PublicKey | None") -> str:
    return "" if key is None else key.public_bytes_raw().hex()


def _shared(model: ModelFolder, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the numbers that travelled: beneath adapters, and at home at a site, others lie."""
    import torch

    from wardround.common.models.networks.registry import build_network
    from wardround.common.models.sharing import layout_of
    from wardround.common.study.plans.strategy import plan_of

    study = model.study
    plan = plan_of(study)
    if plan.share == "all" and not (study.model.adapted or study.federation.personal):
        return weights
    try:
        with torch.device("meta"):  # no memory for a network that somebody else describes
            network = build_network(study, 0)
    except (NotImplementedError, RuntimeError):  # one that computes while it is built
        network = build_network(study, 0)
    layout = layout_of(network, plan)
    return {name: weights[name] for name in layout.shared if name in weights}
