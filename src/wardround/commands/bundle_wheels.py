"""``wardround bundle-wheels``: all that an installation needs, for a machine without a network.

What is bundled is what ``requirements/*.txt`` names, each file held against its hash there, and
this checkout's own wheel. The bundle installs by a script of its own that needs Python alone.
"""

import hashlib
import json
import platform
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.errors import InputError, RunError
from wardround.common.runtime.command_options import AsJson

PYPI, PYTORCH = "https://pypi.org/simple", "https://download.pytorch.org/whl/cpu"
LOCK_FILE, SUMS_FILE, SCRIPT_FILE, README_FILE = (
    "requirements.txt",
    "SHA256SUMS",
    "install.sh",
    "README.txt",
)
_WHEELS = "wheels"
_NEEDED, _REQUIREMENTS = ("pyproject.toml", "requirements/build.txt"), Path("requirements")
_SCRIPT = Path(__file__).with_name("install_bundle.sh")
_CHUNK_BYTES = 2**20
_ERROR_LINE = re.compile(r"^ERROR: (.{1,300})", re.MULTILINE)
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class Role(StrEnum):
    """Who installs."""

    SITE, SERVER, SIMULATION = "site", "server", "simulation"


class Torch(StrEnum):
    """Which build of torch."""

    CPU, CUDA = "cpu", "cuda"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A wheel of a bundle.

    Attributes:
        digest: SHA-256, 64 hexadecimal digits.
    """

    file: str
    name: str
    version: str
    digest: str
    size_bytes: int

    def requirement(self) -> str:
        """Return its line of the bundle's requirements."""
        return f"{self.name}=={self.version} --hash=sha256:{self.digest}"


def bundle_wheels(
    out: Annotated[Path, typer.Option(help="A new folder for the bundle.", show_default=False)],
    role: Annotated[Role, typer.Option("--for", help="Who installs it.")] = Role.SITE,
    torch: Annotated[Torch, typer.Option(help="torch for the CPU, or with CUDA.")] = Torch.CPU,
    index_url: Annotated[str, typer.Option(help="The one index of packages.")] = PYPI,
    torch_index_url: Annotated[
        str, typer.Option(help="The index of torch's CPU build; with CUDA it is that of packages.")
    ] = PYTORCH,
    as_json: AsJson = False,
) -> None:
    """Collect every wheel of an installation, for a machine that reaches no package index.

    Run it in a checkout; the bundle is for the Python and the processor that it is made with. On
    the other machine compare the digest that is printed here, then run the bundle's install.sh.

    Example: wardround bundle-wheels --for site --out bundle
    """
    of_torch = index_url if torch is Torch.CUDA else torch_index_url
    locks = {
        _REQUIREMENTS / f"torch-{torch}.txt": of_torch,
        _REQUIREMENTS / f"{role}.txt": index_url,
    }
    _check_checkout(locks)
    wheels = _new_folder(out) / _WHEELS
    wheels.mkdir()
    for lock, index in locks.items():
        _say(f"fetching what {lock.name} names from {index}", as_json)
        _pip(
            *("download", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"),
            *("--index-url", index, "--dest", str(wheels), "--requirement", str(lock)),
            failed=f"not all that {lock.name} names could be fetched from {index}",
        )
    _say("building wardround's own wheel", as_json)
    _pip(
        *("wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", str(wheels), "."),
        failed="wardround's own wheel could not be built",
    )
    bundled = tuple(_read_wheels(wheels))
    check_hashes(bundled, locks)
    digest = write_papers(out, bundled, f"{role}, torch for {torch.upper()}")
    size = sum(wheel.size_bytes for wheel in bundled)
    if as_json:
        facts = {"folder": str(out), "wheels": len(bundled), "bytes": size, "sha256sums": digest}
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    sys.stdout.write(
        f"{out}: {len(bundled)} wheels, {size / 1e6:.0f} MB, for Python {_VERSION} on "
        f"{platform.machine()}.\nCarry the whole folder over, then: sh {SCRIPT_FILE} NEW-FOLDER\n"
        f"It must print this digest of {SUMS_FILE}, told by another way than the bundle's own:\n"
        f"{digest}\n"
    )


def check_hashes(bundled: Sequence[Bundled], locks: Iterable[Path]) -> None:
    """Hold every wheel but our own against the lock files once more; pip has done it before.

    Raises:
        RunError: One has a hash that no lock file names.
    """
    known = {
        found
        for lock in locks
        for found in re.findall(r"--hash=sha256:([0-9a-f]{64})", lock.read_text(encoding="utf-8"))
    }
    foreign = [one.file for one in bundled if one.digest not in known and one.name != "wardround"]
    if foreign:
        msg = (
            f"{foreign[0]} is not what requirements/*.txt names: delete the folder, and ask who "
            "changes files on the way."
        )
        raise RunError(msg)


def write_papers(out: Path, bundled: Sequence[Bundled], what: str) -> str:
    """Write what goes with the wheels: requirements with hashes, checksums, script, explanation.

    Returns:
        The SHA-256 of the list of checksums.
    """
    facts = {
        "version": next((one.version for one in bundled if one.name == "wardround"), ""),
        "what": what,
        "python": _VERSION,
        "system": f"{platform.system()} {platform.machine()}",
        "count": str(len(bundled)),
    }
    texts = {
        LOCK_FILE: "".join(f"{one.requirement()}\n" for one in bundled),
        SCRIPT_FILE: _filled(_SCRIPT.read_text(encoding="utf-8"), facts),
        README_FILE: _filled(_README, facts),
    }
    sums = [(one.digest, f"{_WHEELS}/{one.file}") for one in bundled]
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
        sums.append((hashlib.sha256(text.encode()).hexdigest(), name))
    (out / SCRIPT_FILE).chmod(0o755)
    listed = "".join(f"{digest}  {name}\n" for digest, name in sums)
    (out / SUMS_FILE).write_text(listed, encoding="utf-8")
    return hashlib.sha256(listed.encode()).hexdigest()


def _check_checkout(locks: Iterable[Path]) -> None:
    missing = [path for path in (*map(Path, _NEEDED), *locks) if not path.exists()]
    if missing:
        msg = f"{missing[0]} is not here: run this in the root of a checkout of wardround."
        raise InputError(msg)


def _new_folder(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists already: name a new folder, so that nothing old is in the bundle."
        raise InputError(msg)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _pip(*words: str, failed: str) -> None:
    """Run this interpreter's pip; its own last error is the fact."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        msg = f"{failed}: this environment has no pip. Run: {sys.executable} -m ensurepip"
        raise RunError(msg)
    errors = _ERROR_LINE.findall(done.stderr)
    fact = errors[-1] if errors else f"pip ended with {done.returncode}"
    msg = (
        f"{failed}: {fact}. Check the way to the index (HTTPS_PROXY, --index-url), that "
        "requirements/build.txt is installed, and that this Python and processor are among those "
        "of the lock file; then delete the folder and try again."
    )
    raise RunError(msg)


def _read_wheels(folder: Path) -> Iterator[Bundled]:
    """Yield the wheels of a folder by name, with name and version as they say themselves."""
    for path in sorted(folder.iterdir()):
        with zipfile.ZipFile(path) as archive:
            facts = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            said = HeaderParser().parsestr(archive.read(facts).decode("utf-8", "replace"))
        yield Bundled(path.name, said["Name"], said["Version"], *_digest(path))


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _filled(template: str, facts: Mapping[str, str]) -> str:
    for name, fact in facts.items():
        template = template.replace(f"@{name}@", fact)
    return template


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        sys.stderr.write(f"{text}\n")


_README = """\
wardround @version@ (@what@), @count@ wheels for Python @python@ under @system@.

First the digest: it must be the one that 'wardround bundle-wheels' printed when it made the bundle,
told by another way than the bundle came. Who can change the bundle can change all that is in it.
  sha256sum SHA256SUMS
  sha256sum --check --quiet SHA256SUMS

Then, into a new virtual environment, without a network:
  sh install.sh NEW-FOLDER
which checks the same again and runs
  pip install --no-index --find-links wheels --require-hashes --no-deps -r requirements.txt
"""
