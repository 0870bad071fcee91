"""Joining a server, and renewing the certificate: the private keys never leave the site folder."""

import hmac
import ssl
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.client.site.credentials import (
    bare_context,
    load_site_tls,
    make_client_context,
    make_tls_key,
    signing_request,
)
from wardround.client.site.folder import open_site
from wardround.client.site.new_folder import (
    NewSiteFolder,
    check_can_join,
    prepare_new_folder,
)
from wardround.client.site.server_client import (
    LinkError,
    RefusedByServerError,
    ask,
    explain_ended_tls,
    open_link,
)
from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import replace_file, write_new
from wardround.common.security.enrolment import (
    CA_PATH,
    JOIN_PATH,
    RENEW_PATH,
    JoinRequest,
    Reply,
    Request,
    sign_as_node,
)
from wardround.common.security.join_token import JoinToken, common_name
from wardround.common.security.tls_key_pair import (
    finish_pair,
    is_renewal_due,
    next_key_path,
    private_pem,
    public_pem,
    read_certificate,
    renewing_alone,
)

_ATTEMPTS = 3  # to hear the reply to a request that may have reached the server


def join(
    token: JoinToken, folder: Path, again: bool = False, ledger: Path | None = None
) -> x509.Certificate:
    """Join the server that a token names, and return the site's certificate.

    The site folder is made where it is missing. Nothing is put into it before the server has
    answered: what fails leaves it as it was.

    Args:
        again: Whether a site that joined before joins anew, with new keys for TLS.
        ledger: The ledger folder of another site folder that holds the same patients.

    Raises:
        InputError: The token has expired, or the folder is not this site's or has joined.
        RunError: The server is not the one that the token is from, was not reached, or refused.
    """
    if token.expires < datetime.now(UTC):
        msg = (
            f"the invitation expired on {token.expires:%Y-%m-%d %H:%M} UTC: ask the server's "
            "operator for a new token. (If that time has not come yet, set this machine's clock.)"
        )
        raise InputError(msg)
    check_can_join(folder, token, again, ledger)
    with prepare_new_folder(folder, token, ledger) as new_folder:
        ca = _fetch_ca(token)
        certificate = _request_certificate(token, ca, new_folder)
        _install(new_folder, certificate, ca)
    return certificate


def renew(folder: Path, address: str = "") -> x509.Certificate:
    """Get a new certificate for a new key; the old certificate stays valid until it expires.

    Connections that are open keep the old one, so no round is lost.

    Args:
        address: Of the server, "host:port", where it is not that of ``site.toml``.

    Raises:
        InputError: The site has not joined, its certificate has expired, or another renewal runs.
        RunError: The server was not reached, or refused.
    """
    tls = load_site_tls(folder)
    name = open_site(folder).name
    with renewing_alone(tls.key_path.parent):
        key = make_tls_key()
        waiting = next_key_path(tls.key_path)
        try:
            replace_file(waiting, private_pem(key))
            with open_link(address or tls.address, make_client_context(tls)) as client:
                request = Request(request=signing_request(key, name))
                reply = ask(client, RENEW_PATH, Reply, request)
            certificate = _checked(reply, key, read_certificate(tls.ca_path), name)
        except (RunError, OSError):
            waiting.unlink(missing_ok=True)
            raise
        finish_pair(tls.key_path, tls.cert_path, certificate.public_bytes(Encoding.PEM))
        return certificate


def renew_if_due(site_folder: Path, address: str = "") -> bool:
    """Renew the certificate if less than a third of its life is left; True if it was.

    A failure is to be logged and tried again: the old certificate still works.

    Args:
        address: As for :func:`renew`.

    Raises:
        InputError: As :func:`renew`.
        RunError: As :func:`renew`.
    """
    certificate = read_certificate(load_site_tls(site_folder).cert_path)
    if not is_renewal_due(certificate, datetime.now(UTC)):
        return False
    renew(site_folder, address)
    return True


def _fetch_ca(token: JoinToken) -> x509.Certificate:
    """Return the consortium's CA certificate, once it is the one whose hash the token holds.

    Nobody is trusted on this connection, so nothing is told: the request has no body, and TLS
    shows that the site holds the invitation's key without showing the key.
    """
    context = bare_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _present_invitation(context, token)
    with open_link(token.address, context) as client:
        try:
            reply = ask(client, CA_PATH, Reply)
        except RunError as error:
            # Whoever ends TLS has no invitation to show to the server, whatever it makes of that.
            was_reached = not isinstance(error, LinkError) or error.sent
            ended = explain_ended_tls(token.address) if was_reached else ""
            if not ended:
                raise
            msg = f"{ended} Nothing secret was sent."
            raise RunError(msg) from None
    try:
        ca = x509.load_pem_x509_certificate(reply.certificate.encode())
        if hmac.compare_digest(ca.fingerprint(hashes.SHA256()), token.ca_sha256):
            return ca
    except ValueError:
        pass
    if ended := explain_ended_tls(token.address):
        msg = f"{ended} Nothing secret was sent."
        raise RunError(msg)
    msg = (
        f"what answers at {token.address} is not the server that the invitation is from (its CA "
        "has another fingerprint). Nothing secret was sent. A proxy that opens TLS does this: ask "
        "for an exception; otherwise tell the server's operator."
    )
    raise RunError(msg)


def _request_certificate(
    token: JoinToken, ca: x509.Certificate, new_folder: NewSiteFolder
) -> x509.Certificate:
    """Ask for the site's certificate; a reply that is lost on the way is asked for again."""
    context = bare_context()
    context.load_verify_locations(cadata=ca.public_bytes(Encoding.DER))
    _present_invitation(context, token)
    asked = _join_request(token, new_folder)
    for attempt in range(_ATTEMPTS):
        try:
            with open_link(token.address, context) as client:
                reply = ask(client, JOIN_PATH, Reply, asked)
            return _checked(reply, new_folder.tls_key, ca, token.site)
        except LinkError as error:
            if not error.sent or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError  # pragma: no cover # the last attempt returns or raises


def _join_request(token: JoinToken, new_folder: NewSiteFolder) -> JoinRequest:
    request = signing_request(new_folder.tls_key, token.site)
    return JoinRequest(
        request=request,
        node_key=public_pem(new_folder.node_key.public_key()).decode(),
        node_signature=sign_as_node(new_folder.node_key, request),
    )


def _present_invitation(context: ssl.SSLContext, token: JoinToken) -> None:
    """Let a TLS context show the invitation; its key is on the disk only meanwhile."""
    with TemporaryDirectory(prefix="wardround-") as folder:
        path = Path(folder) / "invitation.pem"
        certificate = token.certificate.public_bytes(Encoding.PEM)
        write_new(path, private_pem(token.key) + certificate)
        context.load_cert_chain(path)


def _checked(
    reply: Reply, key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, site: str
) -> x509.Certificate:
    """Return the certificate of a reply, if it is the consortium's for this site and key."""
    try:
        certificate = x509.load_pem_x509_certificate(reply.certificate.encode())
        certificate.verify_directly_issued_by(ca)
        if (common_name(certificate.subject), certificate.public_key()) == (site, key.public_key()):
            return certificate
    except (ValueError, TypeError, InvalidSignature):
        pass
    msg = (
        "the server's answer is not a certificate for this site's key: compare "
        "'wardround --version' on both sides, and tell the server's operator."
    )
    raise RefusedByServerError(msg)


def _install(
    new_folder: NewSiteFolder, certificate: x509.Certificate, ca: x509.Certificate
) -> None:
    """Put everything in its place."""
    try:
        new_folder.add_certificates(certificate, ca)
        new_folder.install()
    except OSError as error:
        msg = (
            f"joined, but {new_folder.folder} cannot be written ({error.strerror}), so it is as it "
            "was. Mend that; then the server's operator runs 'wardround server revoke' for this "
            "site and gives you a new token."
        )
        raise RunError(msg) from None
