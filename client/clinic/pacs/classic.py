"""An archive over DICOM's own protocol: C-ECHO, C-FIND, C-GET or C-MOVE, C-STORE (PS3.4, PS3.7)."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.clinic.pacs.archive import (
    Answers,
    Found,
    FoundSeries,
    FoundStudy,
    PacsAwayError,
    PacsError,
    StoredObject,
    StudyQuery,
    listed_objects,
    object_of,
    require_stored,
    series_of,
    study_of,
)
from wardround.client.clinic.pacs.connections import (
    COMPRESSED,
    IMAGE_CLASSES,
    UNCOMPRESSED,
    ByteLimit,
    client_tls,
    new_entity,
)
from wardround.client.clinic.pacs.receiver import (
    CANNOT_UNDERSTAND,
    SUCCESS,
    answer,
    receiving,
    with_file_meta,
)
from wardround.client.clinic.pacs.series_folder import SeriesFolder
from wardround.client.clinic.pacs.settings import ClassicTable, LimitsTable, ReceiverTable
from wardround.common.errors import WardroundError
from wardround.common.runtime.fields import plain

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

_FIND, _GET, _MOVE = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 3, 2))  # study root
_VERIFICATION = "1.2.840.10008.1.1"
_PENDING = (0xFF00, 0xFF01)
_WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, though something was changed or is unusual
_MOST_CLASSES = 15  # of a series, so that a connection's 128 ways to send are not exceeded


class ClassicArchive:
    """An archive that speaks DICOM's own protocol."""

    def __init__(
        self,
        site: Path,
        table: ClassicTable,
        receiver: ReceiverTable | None,
        limits: LimitsTable,
    ) -> None:
        """Read the certificates that it needs; nothing is asked yet.

        Raises:
            InputError: A file is missing, or the package is.
        """
        self._site, self._table, self._limits = site, table, limits
        self._receiver = receiver
        self._tls: ssl.SSLContext | None = None
        if table.tls:
            self._tls = client_tls(site, table.ca_file, table.certificate_file, table.key_file)
        new_entity(table.own_title, table.timeout_seconds)  # says at once what is not installed

    @property
    def name(self) -> str:
        """Where it is."""
        return f"the archive {self._table.title} at {self._table.host}:{self._table.port}"

    def ping(self) -> None:
        """Send a C-ECHO, and look whether it lets us search."""
        with self._connected([_context(_VERIFICATION), _context(_FIND)]) as link:
            status = link.send_c_echo()
            self._require(status.get("Status"), "answer a C-ECHO")

    def find_studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Return the studies that a query fits."""
        asked = {
            "PatientID": "",
            "AccessionNumber": "",
            "StudyDate": "",
            "StudyDescription": "",
            "ModalitiesInStudy": "",
            "StudyInstanceUID": "",
            **query.filters,
        }
        return self._find("STUDY", asked, study_of)

    def find_series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        asked = {
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": "",
            "Modality": "",
            "SeriesDescription": "",
            "NumberOfSeriesRelatedInstances": "",
        }
        return self._find("SERIES", asked, lambda found: series_of(found, study_uid))

    def find_objects(self, study_uid: str, series_uid: str) -> list[StoredObject]:
        """Return the objects of a series; none where the archive does not know it."""
        asked = {
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": series_uid,
            "SOPInstanceUID": "",
            "SOPClassUID": "",
        }
        return self._find("IMAGE", asked, object_of)

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        """Write the objects of a series into a folder, fetched by C-GET or sent after a C-MOVE."""
        objects = listed_objects(self, study_uid, series_uid)
        received = SeriesFolder(folder, series_uid, self._limits)
        incoming = _Incoming(received)
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        wanted = _dataset("SERIES", keys)
        if self._table.retrieve == "move" and self._receiver is not None:
            self._move(wanted, self._receiver, incoming)
        else:
            self._get(wanted, objects, incoming)
        incoming.raise_fault()
        received.require(one.uid for one in objects)
        return received.paths

    def store(self, datasets: Sequence["Dataset"]) -> None:
        """Send objects by C-STORE, and look by a query whether they are there."""
        contexts = [
            _context(class_uid, _syntaxes_of(datasets, class_uid))
            for class_uid in sorted({str(one.SOPClassUID) for one in datasets})
        ]
        with self._connected(contexts) as link:
            for dataset in datasets:
                try:
                    status = link.send_c_store(dataset).get("Status")
                except ValueError:  # no presentation context was accepted for it
                    name = type_name(str(dataset.SOPClassUID))
                    msg = f"{self.name} does not take objects of the kind {name}."
                    raise PacsError(msg) from None
                if status not in _WARNINGS:
                    self._require(status, "store an object")
        require_stored(self, datasets)

    def _find(
        self, level: str, keys: dict[str, str], read: Callable[["Dataset"], Found]
    ) -> list[Found]:
        found = Answers(read, self._limits.found)
        limit = ByteLimit(1, self._table.timeout_seconds)
        with self._connected([_context(_FIND)], limit=limit) as link:
            for status, identifier in link.send_c_find(_dataset(level, keys), _FIND):
                code = status.get("Status")
                limit.start_object()
                if code not in _PENDING:
                    self._require(code, "answer a C-FIND")
                    break
                if identifier is None:
                    msg = f"{self.name} answers a C-FIND with what cannot be read."
                    raise PacsError(msg)
                found.add(identifier)
        return found.finish()

    def _get(self, wanted: "Dataset", objects: Sequence[StoredObject], taken: "_Incoming") -> None:
        from pynetdicom import build_role, evt

        classes = sorted({one.class_uid for one in objects if one.class_uid}) or [*IMAGE_CLASSES]
        contexts = [_context(_GET)]
        for class_uid in classes[:_MOST_CLASSES]:
            contexts.append(_context(class_uid, UNCOMPRESSED))
            contexts += [_context(class_uid, (one,)) for one in COMPRESSED]
        roles = [build_role(one, scp_role=True) for one in classes[:_MOST_CLASSES]]
        limit = ByteLimit(self._limits.object_megabytes, self._table.timeout_seconds)

        def stored(event: "Event") -> int:
            limit.start_object()
            return taken.take(with_file_meta(event))

        handlers = [(evt.EVT_C_STORE, stored)]
        with self._connected(contexts, roles, handlers, limit) as link:
            for status, _ in link.send_c_get(wanted, _GET):
                self._follow(status, taken, "send the series by C-GET")

    def _move(self, wanted: "Dataset", receiver: ReceiverTable, taken: "_Incoming") -> None:
        what = (
            f"send the series by C-MOVE to {receiver.title!r}, whose address and port have to be "
            "entered there,"
        )
        with (
            receiving(self._site, receiver, self._limits, taken.take),
            self._connected([_context(_MOVE)]) as link,
        ):
            for status, _ in link.send_c_move(wanted, receiver.title, _MOVE):
                self._follow(status, taken, what)

    def _follow(self, status: "Dataset", taken: "_Incoming", what: str) -> None:
        """Look at one answer of many; what was wrong with an object says more than it."""
        code = status.get("Status")
        if code in _PENDING:
            return
        taken.raise_fault()
        if code not in _WARNINGS:  # objects that did not come are counted afterwards
            self._require(code, what)

    def _require(self, status: int | None, what: str) -> None:
        if status == SUCCESS:
            return
        if status is None:
            msg = f"{self.name} broke off, or took too long to {what}."
            raise PacsAwayError(msg)
        kind = PacsAwayError if 0xA700 <= status <= 0xA7FF else PacsError  # resources
        msg = f"{self.name} did not {what} (status 0x{status:04X})."
        raise kind(msg)

    @contextmanager
    def _connected(
        self,
        contexts: "Sequence[PresentationContext]",
        roles: Sequence[object] = (),
        handlers: Sequence[tuple[object, object]] = (),
        limit: ByteLimit | None = None,
    ) -> "Iterator[Association]":
        from pynetdicom import evt

        table = self._table
        entity = new_entity(table.own_title, table.timeout_seconds)
        bound = limit or ByteLimit(1, self._table.timeout_seconds)
        link = entity.associate(
            table.host,
            table.port,
            contexts=list(contexts),
            ae_title=table.title,
            ext_neg=list(roles) or None,
            evt_handlers=[(evt.EVT_CONN_OPEN, bound.bind), *handlers],
            tls_args=(self._tls, table.host) if self._tls else None,
        )
        if not link.is_established:
            raise self._unconnected(link)
        try:
            yield link
        finally:
            link.release() if link.is_established else link.abort()
            if bound.exceeded:
                msg = (
                    f"{self.name} sends more than limits.object_megabytes = "
                    f"{self._limits.object_megabytes} as one object: raise it if that is right."
                )
                raise PacsError(msg)

    def _unconnected(self, link: "Association") -> PacsError:
        """Say why there is no connection: pynetdicom tells of a refusal only."""
        primitive = link.acceptor.primitive
        reason = (getattr(primitive, "result_source", 0), getattr(primitive, "diagnostic", 0))
        if link.is_rejected and reason in _REJECTIONS:
            return PacsError(
                f"{self.name} rejects the connection: "
                + _REJECTIONS[reason].format(own=self._table.own_title)
            )
        if link.is_rejected:
            return PacsAwayError(f"{self.name} rejects the connection for now: it is busy.")
        return self._look_again()

    def _look_again(self) -> PacsError:
        """Connect without DICOM, to tell a host that is away from one that hangs up."""
        table = self._table
        try:
            link = socket.create_connection((table.host, table.port), table.timeout_seconds)
        except socket.gaierror:
            return PacsAwayError(f"{self.name} has an unknown host name: look at classic.host.")
        except ConnectionRefusedError:
            return PacsAwayError(f"{self.name} refuses connections: nothing listens there now.")
        except OSError:
            return PacsAwayError(f"{self.name} is not reached.")
        with link:
            if self._tls is not None:
                try:
                    self._tls.wrap_socket(link, server_hostname=table.host).close()
                except OSError as error:  # an SSLError is one
                    words = plain(getattr(error, "reason", None) or "it hangs up", 80)
                    return PacsError(
                        f"no trusted connection to {self.name}: TLS failed ({words}). Look at "
                        "classic.tls, classic.ca_file and the port."
                    )
        return PacsAwayError(
            f"{self.name} hangs up: it may want TLS (classic.tls), not allow this machine, or "
            "speak something else at this port."
        )


# (source, diagnostic) of a rejection (PS3.8, table 9-21).
_REJECTIONS = {
    (1, 3): "it does not know {own!r}: enter this title there, or set classic.own_title.",
    (1, 7): "it calls itself otherwise: look at classic.title.",
    (1, 1): "it gives no reason; mostly a title or the address of this machine is unknown to it.",
}


class _Incoming:
    """Objects that arrive in another thread, the first fault among them kept for this one."""

    def __init__(self, folder: SeriesFolder) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._fault: WardroundError | OSError | None = None

    def take(self, dataset: "Dataset") -> int:
        """Write an object; return the answer for whoever sent it."""
        with self._lock:
            return answer(lambda: self._write(dataset))

    def _write(self, dataset: "Dataset") -> int:
        if self._fault is not None:
            return CANNOT_UNDERSTAND
        try:
            self._folder.add(dataset)
        except (WardroundError, OSError) as fault:
            self._fault = fault
            raise
        return SUCCESS

    def raise_fault(self) -> None:
        """Raise what went wrong with an object."""
        if self._fault is not None:
            raise self._fault


def type_name(class_uid: str) -> str:
    """Return a SOP class in words."""
    from pydicom.uid import UID

    return str(UID(class_uid).name)


def _context(abstract: str, syntaxes: Sequence[str] = UNCOMPRESSED) -> "PresentationContext":
    from pynetdicom import build_context

    return build_context(abstract, list(syntaxes))


def _syntaxes_of(datasets: Sequence["Dataset"], class_uid: str) -> list[str]:
    found = {
        str(one.file_meta.TransferSyntaxUID)
        for one in datasets
        if str(one.SOPClassUID) == class_uid
    }
    return sorted(found)


def _dataset(level: str, keys: dict[str, str]) -> "Dataset":
    from pydicom import Dataset

    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made
