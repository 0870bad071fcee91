"""DICOM's own connections (associations): bounded in size, silent in the log, encrypted if wanted.

pynetdicom reads a message of whatever length the other side announces. What it reads is counted
here, and the connection is cut where it is more than one object may be.
"""

import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.common.errors import InputError, install_command

if TYPE_CHECKING:
    from pynetdicom import AE
    from pynetdicom.association import Association
    from pynetdicom.events import Event

_MEGABYTE = 2**20
_MESSAGE_BYTES = 16 * _MEGABYTE  # of what is no object: answers to queries, association requests

UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")  # Explicit and Implicit VR
COMPRESSED = (
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
    "1.2.840.10008.5.1.4.1.1.1",  # CR
    "1.2.840.10008.5.1.4.1.1.1.1",  # DX
    "1.2.840.10008.5.1.4.1.1.1.2",  # mammography
    "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.3.1",  # ultrasound, multi-frame
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.128",  # PET
    "1.2.840.10008.5.1.4.1.1.20",  # nuclear medicine
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT structure set
)


def new_entity(title: str, timeout_seconds: float) -> "AE":
    """Return an application entity that waits so long for anything, and logs nothing.

    Raises:
        InputError: pynetdicom is not installed.
    """
    try:
        from pynetdicom import AE
    except ImportError:
        msg = f"pynetdicom is missing. Install it: {install_command('pacs')}"
        raise InputError(msg) from None
    # It repeats what the other side says, patients' names included.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    entity = AE(ae_title=title)
    entity.connection_timeout = entity.acse_timeout = timeout_seconds
    entity.dimse_timeout = entity.network_timeout = timeout_seconds
    return entity


class ByteLimit:
    """Counts what a connection brings, and cuts it where that is more than may come."""

    def __init__(self, object_megabytes: int, silence_seconds: float = 60.0) -> None:
        """Set the most bytes of one object, and how long the other side may send none."""
        self._silence = silence_seconds
        self._most = object_megabytes * _MEGABYTE + _MESSAGE_BYTES
        self._since_object = 0
        self.exceeded = False

    def bind(self, event: "Event") -> None:
        """Count from the opening of a connection on (``EVT_CONN_OPEN``)."""
        link: Any = event.assoc.dul.socket
        link.socket.settimeout(self._silence)  # in the midst of a message pynetdicom has none
        receive: Callable[[int], bytearray] = link.recv

        def counted(wanted: int) -> bytearray:
            self._since_object += wanted
            if self._since_object > self._most:
                self.exceeded = True
                cut(event.assoc)
                return bytearray()
            return receive(wanted)

        link.recv = counted

    def start_object(self) -> None:
        """Count anew: an object, or an answer, has come whole."""
        self._since_object = 0


def cut(association: "Association") -> None:
    """Close the socket of a connection; pynetdicom then ends it as one that broke off."""
    link: Any = association.dul.socket
    if link is None or link.socket is None:
        return
    try:
        link.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def client_tls(site: Path, ca_file: str, certificate_file: str, key_file: str) -> ssl.SSLContext:
    """Return how a connection to an archive is encrypted, its certificate checked.

    Raises:
        InputError: A file is missing or is no certificate.
    """
    context = ssl.create_default_context()
    _load(context, site, ca_file, certificate_file, key_file)
    return context


def server_tls(site: Path, ca_file: str, certificate_file: str, key_file: str) -> ssl.SSLContext:
    """Return how a receiver encrypts; with an authority, who sends must show its certificate.

    Raises:
        InputError: A file is missing or is no certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, site, ca_file, certificate_file, key_file)
    return context


def _load(context: ssl.SSLContext, site: Path, ca: str, certificate: str, key: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca:
            context.load_verify_locations(str(site / ca))
        if certificate:
            context.load_cert_chain(str(site / certificate), str(site / key) if key else None)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(filter(None, (ca, certificate, key)))
        why = error.strerror if isinstance(error, OSError) and error.strerror else "unreadable"
        msg = f"pacs.toml: one of {names} is no usable certificate or key ({why})."
        raise InputError(msg) from None
