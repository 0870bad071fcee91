"""A real picture archive on this machine: Debian's Orthanc, unpacked into a cache, on loopback.

Nothing is installed: ``apt-get download`` and ``dpkg -x`` need no root. The cache is
``~/.cache/wardround-tests/orthanc``, or the folder that WARDROUND_ORTHANC names.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_PACKAGES = (
    "orthanc",
    "orthanc-dicomweb",
    "dicom3tools",
    "libdcmtk17",
    "libcivetweb1",
    "liblua5.3-0",
    "libpugixml1v5",
    "libboost-filesystem1.74.0",
    "libboost-iostreams1.74.0",
    "libboost-locale1.74.0",
    "libboost-regex1.74.0",
    "libboost-thread1.74.0",
    "libjsoncpp25",
    "libwrap0",
)
_ARCHITECTURES = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_START_SECONDS, _TRIES = 60.0, 3
USER, PASSWORD = "wardround", "a password of 27 characters"  # of this test alone
TITLE = "ORTHANC"


class NoOrthancError(Exception):
    """There is no Orthanc on this machine; the text says why."""


@dataclass(frozen=True)
class Debian:
    """The unpacked packages."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For processes that run from there."""
        libraries = [self.folder / "usr" / "lib" / name for name in _ARCHITECTURES]
        dictionary = self.folder / "usr" / "share" / "libdcmtk17" / "dicom.dic"
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "DCMDICTPATH": str(dictionary),
        }

    def run(self, name: str, *words: object) -> "subprocess.CompletedProcess[str]":
        """Run one of the programs."""
        program = self.folder / "usr" / "bin" / name
        return subprocess.run(
            [str(program), *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=120,
        )


@cache
def unpacked() -> Debian:
    """Return the packages, downloaded once.

    Raises:
        NoOrthancError: They cannot be had here.
    """
    cached = Path.home() / ".cache" / "wardround-tests" / "orthanc"
    folder = Path(os.environ.get("WARDROUND_ORTHANC", cached))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the tests may run in several processes
        whole = folder / "unpacked"
        if not whole.is_dir():
            _download(folder, whole)
    found = Debian(whole)
    missing = _missing_libraries(found)
    if missing:
        msg = f"Orthanc lacks libraries here: {', '.join(missing)}"
        raise NoOrthancError(msg)
    return found


def _download(folder: Path, whole: Path) -> None:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            msg = f"no Orthanc: there is no {tool} here (it comes as Debian 12's packages)"
            raise NoOrthancError(msg)
    part = folder / f"part-{os.getpid()}"
    part.mkdir()
    try:
        done = subprocess.run(
            ["apt-get", "download", *_PACKAGES],
            cwd=part,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        packages = [*part.glob("*.deb")]
        if len(packages) != len(_PACKAGES):
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            msg = f"no Orthanc: apt-get download failed ({why[:200]}); it needs Debian 12's lists"
            raise NoOrthancError(msg)
        for package in packages:
            subprocess.run(
                ["dpkg", "-x", str(package), str(part / "unpacked")], check=True, timeout=120
            )
        (part / "unpacked").rename(whole)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _missing_libraries(found: Debian) -> list[str]:
    programs = [found.folder / "usr" / "sbin" / "Orthanc", _plugin(found)]
    missing: set[str] = set()
    for program in programs:
        told = subprocess.run(
            ["ldd", str(program)],
            env=found.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        lines = told.stdout.splitlines()
        missing |= {line.split()[0] for line in lines if "not found" in line}
    return sorted(missing)


def _plugin(found: Debian) -> Path:
    return next((found.folder / "usr" / "lib" / "orthanc").glob("libOrthancDicomWeb.so.*"))


@dataclass
class Orthanc:
    """An archive of this test, with a folder of its own.

    Attributes:
        peers: AE titles that may ask and be sent to, with their ports on this machine.
    """

    folder: Path
    peers: dict[str, int] = field(default_factory=dict)
    web_port: int = 0
    dicom_port: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    kept_ports: bool = False

    def __post_init__(self) -> None:
        """Choose the ports, which stay the same however often it is started."""
        self.web_port, self.dicom_port = free_port(), free_port()

    @property
    def url(self) -> str:
        """Where its DICOMweb services start."""
        return f"http://127.0.0.1:{self.web_port}/dicom-web"

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            NoOrthancError: There is none here.
            RuntimeError: It ends instead.
        """
        found = unpacked()
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            if self._started(found):
                return
            if not self.kept_ports:  # another process may have taken them meanwhile
                self.web_port, self.dicom_port = free_port(), free_port()
        said = (self.folder / "log").read_text(errors="replace").splitlines()[-3:]
        msg = f"Orthanc does not start: {' / '.join(said)[:600]}"
        raise RuntimeError(msg)

    def _started(self, found: Debian) -> bool:
        settings = self.folder / "orthanc.json"
        settings.write_text(json.dumps(self._settings(found)), encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(found.folder / "usr" / "sbin" / "Orthanc"), str(settings)],
                env=found.environment,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                return False
            time.sleep(0.1)
        self.kept_ports = True
        return True

    def stop(self) -> None:
        """End it; what it holds stays."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def get(self, path: str) -> object:
        """Return what its own API (not DICOMweb) says."""
        return json.loads(self._ask("GET", path))

    def put(self, path: str, content: bytes) -> None:
        """Send something to its own API, e.g. a DICOM file to ``instances``."""
        self._ask("POST", path, content)

    def delete(self, path: str) -> None:
        """Remove something."""
        self._ask("DELETE", path)

    def add_files(self, paths: Sequence[Path]) -> None:
        """Store DICOM files by its own API, so that none of our code is needed for it."""
        for path in paths:
            self.put("instances", path.read_bytes())

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        request = urllib.request.Request(  # of this machine
            f"http://127.0.0.1:{self.web_port}/{path}", data=content, method=method
        )
        word = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def _answers(self) -> bool:
        with suppress(urllib.error.URLError, OSError, ValueError):
            return isinstance(self.get("system"), dict)
        return False

    def _settings(self, found: Debian) -> dict[str, object]:
        return {
            "Name": "wardround tests",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(_plugin(found))],
            "HttpPort": self.web_port,
            "DicomPort": self.dicom_port,
            "DicomAet": TITLE,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomAlwaysAllowFind": False,
            "DicomAlwaysAllowGet": False,
            "DicomAlwaysAllowMove": False,
            "UnknownSopClassAccepted": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomModalities": {
                title.lower(): {
                    "AET": title,
                    "Host": "127.0.0.1",
                    "Port": port,
                    "AllowEcho": True,
                    "AllowFind": True,
                    "AllowGet": True,
                    "AllowMove": True,
                    "AllowStore": True,
                }
                for title, port in self.peers.items()
            },
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "SaveJobs": False,
        }


@contextmanager
def running(folder: Path, **peers: int) -> Iterator[Orthanc]:
    """Run an archive while the context lasts.

    Raises:
        NoOrthancError: There is none here.
    """
    archive = Orthanc(folder, dict(peers))
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


def free_port() -> int:
    """Return a port of loopback that nothing uses now."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
