"""A hospital leaves a study, or patients of it do: asked of the server, signed, and followed up.

From the moment it is written down here the site trains no more for the study. What leaves is the
study's digest, the site's name, the word "site" or "patients", and a signature: no patient, and not
how many.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wardround.client.policy.approvals import decide, full_digest
from wardround.client.site.credentials import load_site_tls, make_client_context
from wardround.client.site.folder import CA_CERTIFICATE, KEY_FOLDER, open_site
from wardround.client.site.server_client import LinkError, RefusedByServerError, exchange, open_link
from wardround.common.errors import InputError
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.security.signing_key import open_key
from wardround.common.security.withdrawal.certificate import (
    LARGEST_CERTIFICATE,
    SignedCertificate,
    open_certificate,
)
from wardround.common.security.withdrawal.request import (
    WITHDRAWALS_PATH,
    SignedRequest,
    WithdrawalAnswer,
    WithdrawalRequest,
    Without,
    consortium_of,
    open_request,
    sign_request,
)

WITHDRAWALS_FOLDER = "withdrawals"
_SENTENCES = {
    400: "it could not read the request: compare 'wardround --version' on both sides.",
    403: "the request is not of this site, or of another consortium.",
    404: "no run of this study at this server has this site in it: there is nothing to repeat.",
    429: "this site is asking already: wait until that has ended.",
}
Note = Callable[[SignedRequest], None]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What was asked, and what has become of it.

    Attributes:
        answer: Of the server; None where it was not reached: the request is kept, and the same
            command sends it again.
        problem: Why there is no answer.
        certificate: Where the certificate lies; None until the server has issued it.
    """

    signed: SignedRequest
    answer: WithdrawalAnswer | None
    problem: str
    certificate: Path | None


def withdraw(
    site_folder: Path, digits: str, without: Without, note: Note, address: str = ""
) -> Withdrawal:
    """Leave a study, or say that patients of the site do; called again, ask how it stands.

    Args:
        digits: The study's digest, or how it begins.
        note: Writes into the audit log what is about to leave.
        address: Of the server, "host:port", where it is not that of ``site.toml``.

    Raises:
        InputError: The study is not known here, or the site has joined no server.
        RefusedByServerError: The server has no such study of this site, or refused.
    """
    digest = full_digest(site_folder, digits)
    tls = load_site_tls(site_folder)
    signed = _request(site_folder, digest, without)
    if without == "site":
        decide(site_folder, digest, "rejected")  # before anything is sent: training ends here
    note(signed)
    place = _place(site_folder, digest, without, ".certificate.json")
    try:
        with open_link(address or tls.address, make_client_context(tls)) as link:
            reply = exchange(link, WITHDRAWALS_PATH, signed.line, 2 * LARGEST_CERTIFICATE)
    except LinkError as error:
        return Withdrawal(signed, None, str(error), place if place.exists() else None)
    if reply.status in _SENTENCES:
        msg = f"the server refused: {_SENTENCES[reply.status]}"
        raise RefusedByServerError(msg)
    answer = reply.read(WithdrawalAnswer)
    if answer.certificate:
        _keep_certificate(place, answer, signed)
    return Withdrawal(signed, answer, "", place if place.exists() else None)


def asked_to_leave(site_folder: Path, digest: str, without: Without) -> SignedRequest | None:
    """Return what this site asked before; None where it asked nothing."""
    try:
        return open_request(_place(site_folder, digest, without, ".json").read_bytes())
    except (OSError, InputError):
        return None


def _request(site_folder: Path, digest: str, without: Without) -> SignedRequest:
    """Return the site's one request of a kind for a study, made at the first call."""
    kept = asked_to_leave(site_folder, digest, without)
    if kept is not None:
        return kept
    site = open_site(site_folder)
    asked = WithdrawalRequest(
        study=digest,
        site=site.name,
        server=consortium_of((site.key_folder / CA_CERTIFICATE).read_bytes()),
        without=without,
        time=int(time.time()),
    )
    signed = sign_request(open_key(site_folder / KEY_FOLDER), asked)
    place = _place(site_folder, digest, without, ".json")
    make_private_folder(place.parent)
    replace_file(place, signed.line)
    return signed


def _keep_certificate(place: Path, answer: WithdrawalAnswer, signed: SignedRequest) -> None:
    """Keep the certificate, once it was verified and is about this request.

    Raises:
        RefusedByServerError: It is not, or was changed.
    """
    try:
        found: SignedCertificate = open_certificate(answer.certificate.encode())
    except InputError as error:
        msg = f"the server sent a certificate that is none: {error}"
        raise RefusedByServerError(msg) from None
    if found.request.line != signed.line:
        msg = "the server sent the certificate of another request: ask its operator."
        raise RefusedByServerError(msg)
    replace_file(place, answer.certificate.encode() + b"\n")


def _place(site_folder: Path, digest: str, without: Without, ending: str) -> Path:
    return site_folder / WITHDRAWALS_FOLDER / f"{digest}-{without}{ending}"
