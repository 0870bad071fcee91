"""An archive over DICOMweb: QIDO-RS finds, WADO-RS fetches, STOW-RS stores (PS3.18).

Nothing is sent in chunks: older Orthancs answer 200 to that and store nothing (dicomweb-client#42).
"""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

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
from wardround.client.clinic.pacs.series_folder import SeriesFolder
from wardround.client.clinic.pacs.settings import LimitsTable, WebTable, read_secret
from wardround.common.errors import InputError, WardroundError, causes, install_command

if TYPE_CHECKING:
    import requests
    from dicomweb_client.api import DICOMwebClient
    from pydicom import Dataset

_Answer: TypeAlias = dict[str, Any]  # a data set in DICOM JSON
_PAGE = 500  # answers of one request
_TRIES, _FIRST_WAIT_MILLISECONDS = 3, 250  # where the archive says that it is busy
_BUSY = (429, 502, 503, 504)
_CHUNK = 2**20
_MEGABYTE = 2**20
_LARGEST_ANSWER = 64 * _MEGABYTE  # of a query
_SLOWEST_RATE = 50_000  # bytes a second, of all that a request brings


class WebArchive:
    """An archive that speaks DICOMweb."""

    def __init__(self, site: Path, table: WebTable, limits: LimitsTable) -> None:
        """Read the secrets that it needs; nothing is asked yet.

        Raises:
            InputError: A file is missing, or the package is.
        """
        self._table, self._limits = table, limits
        self._session = _Session(site, table)
        self._client = self._connect(_CHUNK)
        self._sender = self._connect(2**62)  # larger than any object: never in chunks

    @property
    def name(self) -> str:
        """Where it is."""
        return f"the archive at {self._table.url}"

    def ping(self) -> None:
        """Ask for one study."""
        with self._in_words(), self._session.at_most(_LARGEST_ANSWER):
            self._client.search_for_studies(limit=1)

    def find_studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Return the studies that a query fits."""
        fields = ("StudyDescription", "ModalitiesInStudy")

        def page(offset: int) -> list[_Answer]:
            found: list[_Answer] = self._client.search_for_studies(
                search_filters=query.filters, fields=fields, limit=_PAGE, offset=offset
            )
            return found

        return self._all(page, study_of)

    def find_series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        fields = ("SeriesDescription", "NumberOfSeriesRelatedInstances")

        def page(offset: int) -> list[_Answer]:
            found: list[_Answer] = self._client.search_for_series(
                study_uid, fields=fields, limit=_PAGE, offset=offset
            )
            return found

        return self._all(page, lambda found: series_of(found, study_uid))

    def find_objects(self, study_uid: str, series_uid: str) -> list[StoredObject]:
        """Return the objects of a series; none where the archive does not know it."""

        def page(offset: int) -> list[_Answer]:
            found: list[_Answer] = self._client.search_for_instances(
                study_uid, series_uid, limit=_PAGE, offset=offset
            )
            return found

        return self._all(page, object_of, unknown_is_empty=True)

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        """Write the objects of a series into a folder, in whatever transfer syntax they have."""
        objects = listed_objects(self, study_uid, series_uid)
        received = SeriesFolder(folder, series_uid, self._limits)
        largest = self._limits.series_megabytes * _MEGABYTE
        with self._in_words(), self._session.at_most(largest, self._limits.object_megabytes):
            for dataset in self._client.iter_series(
                study_uid, series_uid, media_types=(("application/dicom", "*"),)
            ):
                received.add(dataset)
                self._session.start_object()
        received.require(one.uid for one in objects)
        return received.paths

    def store(self, datasets: Sequence["Dataset"]) -> None:
        """Store objects one by one, and look by a query whether they are there."""
        for dataset in datasets:
            with self._in_words(), self._session.at_most(_LARGEST_ANSWER):
                self._sender.store_instances([dataset])
        require_stored(self, datasets)

    def _connect(self, chunk: int) -> "DICOMwebClient":
        import logging

        try:
            from dicomweb_client.api import DICOMwebClient
        except ImportError:
            msg = f"dicomweb-client is missing. Install it: {install_command('pacs')}"
            raise InputError(msg) from None
        # They repeat what the archive says, and name studies by their identifiers.
        for talkative in ("dicomweb_client", "retrying", "urllib3"):
            logging.getLogger(talkative).setLevel(logging.CRITICAL)
        client = DICOMwebClient(
            self._table.url.rstrip("/"),
            session=self._session.session,
            chunk_size=chunk,
            timeout=self._table.timeout_seconds,
        )
        client.set_http_retry_params(
            retry=True,
            max_attempts=_TRIES,
            wait_exponential_multiplier=_FIRST_WAIT_MILLISECONDS,
            retriable_error_codes=_BUSY,
        )
        return client

    def _all(
        self,
        page: Callable[[int], list[_Answer]],
        read: Callable[["Dataset"], Found],
        unknown_is_empty: bool = False,
    ) -> list[Found]:
        """Return all answers, page by page; an archive that knows no pages repeats its first."""
        import requests
        from pydicom import Dataset

        found = Answers(read, self._limits.found)
        offset = 0
        while True:
            with self._in_words(), self._session.at_most(_LARGEST_ANSWER):
                try:
                    answers = page(offset)
                except requests.HTTPError as error:
                    if unknown_is_empty and _status(error) == 404:  # not found
                        return []
                    raise
                new = [found.add(Dataset.from_json(answer)) for answer in answers]
            offset += len(new)
            if not any(new) or len(new) < _PAGE:
                return found.finish()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say what went wrong in words of our own: the archive's may hold anything."""
        from requests import RequestException

        try:
            yield
        except WardroundError:
            raise
        except RequestException as error:
            raise self._explained(error) from None
        except OSError:
            raise  # of the disk that an object is written to
        except Exception as error:  # what it answered cannot be read: it may be anything
            if type(error).__name__ == "RetryError":
                msg = f"{self.name} is busy or going down: {_TRIES} requests were turned away."
                raise PacsAwayError(msg) from None
            raise self._unreadable(error) from None

    def _explained(self, error: "requests.RequestException") -> PacsError:
        import requests

        if isinstance(error, requests.HTTPError):
            return self._refused(_status(error))
        if isinstance(error, requests.TooManyRedirects):
            return PacsError(f"{self.name} points to another address: write that as dicomweb.url.")
        if isinstance(error, requests.exceptions.InvalidJSONError):
            return self._unreadable(error)
        return self._unreached(error)

    def _unreadable(self, error: Exception) -> PacsError:
        return PacsError(f"{self.name} answers what is no DICOMweb ({type(error).__name__}).")

    def _refused(self, status: int) -> PacsError:
        words = {
            401: "does not know this user: look at dicomweb.user and the password or token",
            403: "does not allow this to the user it knows",
            404: "knows no such address or object: look whether dicomweb.url is complete",
            413: "does not take objects of this size",
        }
        if status in _BUSY or status == 500:  # an error of the archive's own
            return PacsAwayError(f"{self.name} has trouble of its own (HTTP {status}).")
        said = words.get(status, "refuses what was asked")
        return PacsError(f"{self.name} {said} (HTTP {status}).")

    def _unreached(self, error: Exception) -> PacsError:
        found = list(causes(error))
        words = " ".join(map(str, found))
        if any(isinstance(one, ssl.SSLError) for one in found) or "SSL" in words:
            return PacsError(f"no trusted connection to {self.name}: {_tls_words(words)}")
        if isinstance(error, _timeouts()):
            seconds = self._table.timeout_seconds
            return PacsAwayError(f"{self.name} did not answer within {seconds:g} seconds.")
        if "refused" in words:
            return PacsAwayError(f"{self.name} refuses connections: nothing listens there now.")
        if "resolve" in words or "Name or service" in words:
            return PacsAwayError(f"{self.name} has an unknown host name: look at dicomweb.url.")
        return PacsAwayError(f"the connection to {self.name} broke off ({type(error).__name__}).")


class _Session:
    """Connections to one archive, whose answers may be so large and so slow, and no more."""

    def __init__(self, site: Path, table: WebTable) -> None:
        try:
            import requests
        except ImportError:
            msg = f"dicomweb-client is missing. Install it: {install_command('pacs')}"
            raise InputError(msg) from None

        session = requests.Session()
        session.trust_env = False  # neither .netrc nor a proxy that was meant for something else
        session.max_redirects = 0  # an archive could send us, and the password, anywhere
        session.hooks["response"].append(self._bound)
        if table.user:
            password = read_secret(site, table.password_file, table.password_variable)
            session.auth = (table.user, password)
        elif table.token_file or table.token_variable:
            token = read_secret(site, table.token_file, table.token_variable)
            session.headers["Authorization"] = f"Bearer {token}"
        _add_certificates(session, site, table)
        self.session = session
        self._timeout = table.timeout_seconds
        self._left = self._object_left = self._object = _LARGEST_ANSWER
        self._until = 0.0

    @contextmanager
    def at_most(self, size: int, object_megabytes: int | None = None) -> Iterator[None]:
        """Bound what comes within the context.

        Args:
            size: Bytes of all answers together.
            object_megabytes: Of one object among them; as much as of all where it is None.
        """
        self._left = size
        self._object = object_megabytes * _MEGABYTE if object_megabytes else size
        self._until = time.monotonic() + self._timeout + size / _SLOWEST_RATE
        self.start_object()
        yield

    def start_object(self) -> None:
        """Count anew: an object has come whole."""
        self._object_left = self._object + _CHUNK  # the last chunk holds a piece of the next

    def _bound(self, response: "requests.Response", **_: object) -> None:
        """Count what is read of an answer, after it was unpacked, before it is held."""
        raw = response.raw
        stream = raw.stream

        def bounded(amount: int = _CHUNK, decode_content: bool | None = None) -> Iterable[bytes]:
            for chunk in stream(min(amount, _CHUNK), decode_content=decode_content):
                self._left -= len(chunk)
                self._object_left -= len(chunk)
                if self._left < 0 or self._object_left < 0:
                    msg = (
                        "the archive sends more than was agreed: limits.object_megabytes and "
                        "limits.series_megabytes in pacs.toml say how much may come."
                    )
                    raise PacsError(msg)
                if time.monotonic() > self._until:
                    msg = "the archive sends so slowly that it would never end."
                    raise PacsAwayError(msg)
                yield chunk

        raw.stream = bounded


def _add_certificates(session: "requests.Session", site: Path, table: WebTable) -> None:
    """Have a session trust the archive's authority and show the site's own certificate."""
    for key, name in (
        ("ca_file", table.ca_file),
        ("certificate_file", table.certificate_file),
        ("key_file", table.key_file),
    ):
        if name and not (site / name).is_file():
            msg = f"dicomweb.{key} = {name!r}: there is no file {site / name}."
            raise InputError(msg)
    if table.ca_file:
        session.verify = str(site / table.ca_file)
    if table.certificate_file:
        own = str(site / table.certificate_file)
        session.cert = (own, str(site / table.key_file)) if table.key_file else own


def _status(error: "requests.HTTPError") -> int:
    return error.response.status_code if error.response is not None else 0


def _timeouts() -> tuple[type[Exception], ...]:
    import requests

    return (requests.Timeout, TimeoutError)


def _tls_words(words: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in words and "Hostname mismatch" not in words:
        return "its certificate is signed by nobody known: name the authority as ca_file."
    if "mismatch" in words or "doesn't match" in words:
        return "its certificate is for another name: write the name it is for in the address."
    if "CERTIFICATE_REQUIRED" in words or "HANDSHAKE_FAILURE" in words:
        return "it wants a certificate of this site: certificate_file and key_file."
    if "WRONG_VERSION_NUMBER" in words:
        return "it does not speak TLS at this port."
    return "TLS failed; look whether both sides allow TLS 1.2 and the certificates are valid."
