"""Images that are sent to this site (a C-STORE receiver), from whom it allows and no one else."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.client.clinic.pacs.archive import PacsError, value_of
from wardround.client.clinic.pacs.connections import (
    COMPRESSED,
    IMAGE_CLASSES,
    UNCOMPRESSED,
    ByteLimit,
    new_entity,
    server_tls,
)
from wardround.client.clinic.pacs.settings import LimitsTable, Peer, ReceiverTable
from wardround.common.errors import InputError, RunError, WardroundError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom.events import Event

_SECONDS = 60.0  # of silence until a connection is closed
_CONNECTIONS = 8  # at a time
_PDU_BYTES = 65_536
_VERIFICATION = "1.2.840.10008.1.1"
# Answers of a C-STORE (PS3.4, annex B.2.3).
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000

Take = Callable[["Dataset"], int]
"""Does something with an object and returns the answer for whoever sent it, e.g. SUCCESS."""


@contextmanager
def receiving(
    site: Path,
    table: ReceiverTable,
    limits: LimitsTable,
    take: Take,
    classes: Sequence[str] = IMAGE_CLASSES,
) -> Iterator[int]:
    """Receive objects while the context lasts; give the port.

    ``take`` is called in several threads, one a connection.

    Args:
        classes: SOP classes that are accepted.

    Raises:
        InputError: A certificate cannot be read, or the port cannot be had.
    """
    entity = new_entity(table.title, _SECONDS)
    entity.require_called_aet = True
    entity.require_calling_aet = sorted({peer.title for peer in table.allowed})
    entity.maximum_associations = _CONNECTIONS
    entity.maximum_pdu_size = _PDU_BYTES
    entity.add_supported_context(_VERIFICATION)
    for one in classes:
        entity.add_supported_context(one, [*UNCOMPRESSED, *COMPRESSED])
    context = None
    if table.certificate_file:
        context = server_tls(site, table.ca_file, table.certificate_file, table.key_file)
    door = _Door(_addresses(table.allowed), limits, take)
    try:
        server = entity.make_server(
            (table.address, table.port),
            ae_title=table.title,
            evt_handlers=door.handlers,
            server_class=_server_class(door, context),
        )
    except OSError as error:
        msg = (
            f"cannot listen at {table.address}:{table.port} ({error.strerror}): is another "
            "receiver running? receiver.port names another port."
        )
        raise InputError(msg) from None
    with _served(server) as port:
        yield port


class _Door:
    """Who may come in, and what is done with what they bring."""

    def __init__(self, allowed: dict[str, set[str]], limits: LimitsTable, take: Take) -> None:
        self.allowed = allowed
        self._limits, self._take = limits, take
        self._counters: dict[object, ByteLimit] = {}
        self._titles: dict[object, set[str]] = {}  # that a connection may call itself by

    @property
    def handlers(self) -> list[tuple[Any, Any]]:
        """What pynetdicom calls, and when."""
        from pynetdicom import evt

        return [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._stored),
        ]

    def _opened(self, event: "Event") -> None:
        self._counters[event.assoc] = limit = ByteLimit(self._limits.object_megabytes)
        limit.bind(event)
        self._titles[event.assoc] = self.allowed.get(str(event.address[0]), set())

    def _closed(self, event: "Event") -> None:
        self._counters.pop(event.assoc, None)
        self._titles.pop(event.assoc, None)

    def _requested(self, event: "Event") -> None:
        title = str(event.assoc.requestor.primitive.calling_ae_title).strip()
        if title not in self._titles.get(event.assoc, ()):
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # permanent: calling title not known
            event.assoc.kill()

    def _stored(self, event: "Event") -> int:
        limit = self._counters.get(event.assoc)
        if limit is not None:
            limit.start_object()
        return answer(lambda: self._take(with_file_meta(event)))


def _server_class(door: _Door, context: ssl.SSLContext | None) -> Any:
    """Return a server that hangs up on strangers, and whose door no slow TLS greeting keeps."""
    from pynetdicom.transport import ThreadedAssociationServer

    class Server(ThreadedAssociationServer):  # type: ignore[misc] # pynetdicom has no types
        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = self.socket.accept()
            if address[0] not in door.allowed:
                connection.close()
                msg = "not an allowed address"
                raise OSError(msg)  # socketserver goes on with the next
            connection.settimeout(_SECONDS)
            if context is not None:
                connection = context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            return connection, address

        def shutdown(self) -> None:
            # pynetdicom's own looks for the server in a list of those that it has started itself.
            socketserver.BaseServer.shutdown(self)

    return Server


@contextmanager
def _served(server: Any) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def with_file_meta(event: "Event") -> "Dataset":
    """Return the object of a C-STORE request as a data set that can be written to a file."""
    dataset = event.dataset
    dataset.file_meta = event.file_meta
    return dataset


def answer(take: Callable[[], int]) -> int:
    """Return the answer for whoever sent an object, whatever happens when it is taken."""
    try:
        return take()
    except PacsError:
        return CANNOT_UNDERSTAND
    except (OSError, RunError):
        return OUT_OF_RESOURCES
    except WardroundError:
        return CANNOT_UNDERSTAND
    except Exception:  # of a foreign object anything may be wrong
        return CANNOT_UNDERSTAND


def series_key(dataset: "Dataset") -> tuple[str, str]:
    """Return study and series of an object."""
    return value_of(dataset, "StudyInstanceUID"), value_of(dataset, "SeriesInstanceUID")


def _addresses(peers: Sequence[Peer]) -> dict[str, set[str]]:
    """Return the titles that each network address may call itself by.

    Raises:
        InputError: A name is not known.
    """
    allowed: dict[str, set[str]] = {}
    for peer in peers:
        try:
            found = socket.getaddrinfo(peer.address, None, type=socket.SOCK_STREAM)
        except OSError:
            msg = f"receiver.allowed: the address {peer.address!r} is not known here."
            raise InputError(msg) from None
        for one in found:
            allowed.setdefault(str(one[4][0]), set()).add(peer.title)
    return allowed
