"""The certificate of a withdrawal, held against keys and models."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import ModelError
from wardround.common.models.documents.signed_rounds import model_lineage, shared_digest
from wardround.common.models.model_folder import ModelFolder, open_model_folder
from wardround.common.runtime.printable import printable
from wardround.common.security.lineage import line_hash
from wardround.common.security.withdrawal.certificate import SignedCertificate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check_keys(
    found: SignedCertificate, server: "Ed25519PublicKey | None", site: "Ed25519PublicKey | None"
) -> None:
    """Check who signed a certificate and the request in it.

    Raises:
        ModelError: A key that was given has not.
    """
    for key, signed_by, what in (
        (server, found.server, "the certificate"),
        (site, found.request.key, "the request in the certificate"),
    ):
        if key is not None and key.public_bytes_raw().hex() != signed_by:
            msg = (
                f"{what} was signed with another key ({signed_by[:12]}...) than the one given "
                f"({key.public_bytes_raw().hex()[:12]}...): get the signer's public key."
            )
            raise ModelError(msg)


def check_model(found: SignedCertificate, folder: Path) -> None:
    """Check that a model is the one of a certificate, and that its signed rounds are.

    Raises:
        ModelError: It is another one, or its rounds are other than the certificate says, or the
            site that left signed a part of one.
    """
    model = open_model_folder(folder)
    if _digest(model) != found.said.model:
        msg = "the model is not the one of the certificate: its weights are others."
        raise ModelError(msg)
    lineage = model_lineage(model, model.weights())
    if lineage is None:
        if found.said.repeated:
            msg = "the model has no signed rounds, and the certificate names some: get it again."
            raise ModelError(msg)
        return
    lines = model.lineage.removesuffix(b"\n").split(b"\n")
    for one in found.said.repeated:
        if one.round < len(lines) and line_hash(lines[one.round]) != one.line:
            msg = f"round {one.round} of the model is not the one of the certificate."
            raise ModelError(msg)
    asked = found.request.asked
    if asked.without == "site" and asked.by == "site" and found.request.key in lineage.sites:
        msg = "the site that left signed a part of the model's rounds: it is in the model."
        raise ModelError(msg)


def is_revoked(found: SignedCertificate, folder: Path) -> bool:
    """Return whether a model is one of those that a certificate revokes.

    Raises:
        ModelError: The folder is no model, or was changed.
    """
    model = open_model_folder(folder)
    study, digest = model.contract.study_digest, _digest(model)
    return any(one.model == digest or one.study == study for one in found.said.revoked)


def certificate_words(found: SignedCertificate) -> Iterator[str]:
    """Yield what a certificate says, in sentences."""
    said, asked = found.said, found.request.asked
    what = printable(asked.site, 100)
    what = what if asked.without == "site" else f"patients of {what}"
    who = "the site's key" if asked.by == "site" else "the operator, with the key"
    when = datetime.fromtimestamp(asked.time, UTC)
    yield f"The certificate is whole, signed by the server's key {found.server}."
    yield (
        f"{what} left study {said.parent.study[:16]}: asked {when:%Y-%m-%d %H:%M} UTC by {who} "
        f"{found.request.key}"
    )
    begin = f"the commit of round {said.checkpoint.round}" if said.checkpoint.round else "the start"
    yield (
        f"Rounds {said.checkpoint.round + 1} to {said.repeat.rounds} were trained again from "
        f"{begin} (model {said.checkpoint.model}), as study {said.repeat.study}"
    )
    equal = "Bit-identical to a run that never had it"
    equal = equal if said.is_exact else f"{said.method.capitalize()}, not bit-equal"
    yield f"{equal}: {printable('; '.join(said.why), 2_000)}."
    yield f"New model {said.model}"
    for one in said.revoked:
        yield f"Revoked: model {one.model} of study {one.study[:16]}, round {one.round}"
    yield f"{len(said.sites)} site keys signed a part of the repeated rounds; {said.wardround}"


def _digest(model: ModelFolder) -> str:
    return shared_digest(model, model.weights())
