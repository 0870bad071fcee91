"""What a package registers, imported from the bytes that were hashed, and from nothing else.

A package is read whole, its hash is held against the one that the study names, and only then are
its modules made, by a finder that knows no other source. A module that is not among its files is
nowhere, even if a file of that name lies beside them.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoint
from importlib.util import decode_source, spec_from_loader
from pathlib import Path
from threading import RLock
from types import CodeType, ModuleType

from wardround.common.errors import PackageError, known_names
from wardround.common.files.packages.needs import dependencies_of, require_hashed_imports
from wardround.common.files.packages.references import GROUPS, Reference, reference_of
from wardround.common.files.packages.snapshot import Snapshot, read_package, registered
from wardround.common.runtime.printable import printable

_LOCK = RLock()
_LOADED: dict[str, Snapshot] = {}  # by package
# What was found, by kind, name and all hashes of the study: transforms are asked for each batch.
_FOUND: dict[tuple[str, Reference, frozenset[tuple[str, str]]], object] = {}
_SHOWN = 16


def component(kind: str, text: str, hashes: Mapping[str, str] | None) -> object:
    """Return what a package registers under a name.

    Args:
        kind: A key of GROUPS.
        text: ``package:name``.
        hashes: The study's ``[packages]``. None takes packages as they are installed here: for the
            data set of a researcher's own simulation, which no hospital is asked about.

    Raises:
        PackageError: The package is not installed, has another hash, or registers no such name.
    """
    named = reference_of(text)
    if named is None:
        msg = f"{printable(text, 80)} is not written as package:name."
        raise PackageError(msg)
    with _LOCK:
        key = (kind, named, frozenset((hashes or {}).items()))
        if hashes is None or key not in _FOUND:
            _FOUND[key] = _found(kind, named, _ready(named.package, hashes, set()))
        return _FOUND[key]


def loaded_hash(package: str) -> str | None:
    """Return the hash of a package of which something was imported here."""
    snapshot = _LOADED.get(package)
    return None if snapshot is None else snapshot.sha256


def forget_packages() -> None:
    """Forget all that was imported of packages here: each is read and checked anew."""
    with _LOCK:
        for snapshot in list(_LOADED.values()):
            _forget(snapshot)


def require_installed(hashes: Mapping[str, str]) -> None:
    """Check that each package of a study is installed with its hash; nothing is imported.

    Raises:
        PackageError: One is not, or has another hash; says both.
    """
    for package, wanted in hashes.items():
        _require_hash(read_package(package), wanted)


def _require_hash(snapshot: Snapshot, wanted: str) -> None:
    if snapshot.sha256 != wanted:
        msg = (
            f"the package {snapshot.package} that is installed here ({snapshot.version}) has the "
            f"hash {snapshot.sha256}, and the study names {wanted}: install the version that the "
            "study was made with, or have its author write the new hash with 'wardround study "
            "lock', which every hospital then approves anew."
        )
        raise PackageError(msg)


def _ready(package: str, hashes: Mapping[str, str] | None, seen: set[str]) -> Snapshot:
    """Return a package whose modules can be imported, with those that it depends on."""
    wanted = None if hashes is None else hashes.get(package)
    if hashes is not None and wanted is None:
        msg = (
            f"the study names something of the package {package}, and [packages] has no hash of "
            "it: run 'wardround study lock' with the study file."
        )
        raise PackageError(msg)
    held = _LOADED.get(package)
    if held is None or (wanted is not None and held.sha256 != wanted):
        held = _read_anew(package, wanted, held)
    for other in dependencies_of(held):
        if other not in seen:
            _ready_dependency(held, other, hashes, {*seen, package})
    if hashes is not None:
        _require_hashed_imports(held, hashes)
    return held


def _read_anew(package: str, wanted: str | None, held: Snapshot | None) -> Snapshot:
    """Read a package and let its modules be found; what was imported of it before is forgotten."""
    snapshot = read_package(package)
    if wanted is not None:
        _require_hash(snapshot, wanted)
    if held is not None:
        _forget(held)
    _refuse_shadows(snapshot)
    _LOADED[package] = snapshot
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return snapshot


def _require_hashed_imports(snapshot: Snapshot, hashes: Mapping[str, str]) -> None:
    tops = {top for name, one in _LOADED.items() if name in hashes for top in one.tops}
    try:
        require_hashed_imports(snapshot, hashes.keys(), tops)
    except PackageError:
        _forget(snapshot)
        raise


def _ready_dependency(
    snapshot: Snapshot, other: str, hashes: Mapping[str, str] | None, seen: set[str]
) -> None:
    if hashes is not None and other not in hashes:
        _forget(snapshot)
        msg = (
            f"the package {snapshot.package} needs {other}, whose files no hash of the study "
            f"stands for: add {other} to [packages] with 'wardround study lock --with {other}', "
            "or leave it out of the package."
        )
        raise PackageError(msg)
    _ready(other, hashes, seen)


class _FromSnapshot(Distribution):
    """The metadata of a package as it was read, not as it lies there now."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def read_text(self, filename: str) -> str | None:
        """Return a file of the metadata; None where there is none."""
        return self._snapshot.metadata_file(filename) or None

    def locate_file(self, path: object) -> Path:
        """Return where a file lies."""
        return self._snapshot.root / str(path)


def _found(kind: str, named: Reference, snapshot: Snapshot) -> object:
    text = f"{named.package}:{named.name}"
    try:
        points = _FromSnapshot(snapshot).entry_points.select(group=GROUPS[kind])
    except (TypeError, ValueError):  # a line without "="
        msg = f"entry_points.txt of {snapshot.package} cannot be read: tell its author."
        raise PackageError(msg) from None
    fitting = [point for point in points if point.name == named.name]
    if not fitting:
        known = [f"{named.package}:{point.name}" for point in points] or registered(kind)
        raise PackageError(known_names(f"name in {GROUPS[kind]}", text, known))
    if len(fitting) > 1:
        msg = f"the package {named.package} registers {text} twice in {GROUPS[kind]}: give two."
        raise PackageError(msg)
    return _imported(text, fitting[0], snapshot)


def _imported(text: str, point: EntryPoint, snapshot: Snapshot) -> object:
    if EntryPoint.pattern.match(point.value) is None:
        msg = (
            f"{text} is registered as {printable(point.value, 80)!r}, which is not written as "
            "module:name: tell its author."
        )
        raise PackageError(msg)
    if point.module not in snapshot.modules:
        msg = (
            f"{text} points at {printable(point.module, 80)}, which is none of the package's own "
            "modules: a package may register its own code alone."
        )
        raise PackageError(msg)
    try:
        return point.load()
    except BaseException as error:  # of a class of its own, too
        _forget(snapshot)
        if isinstance(error, KeyboardInterrupt):
            raise
        msg = (
            f"{text} cannot be loaded: its import ended with {type(error).__name__} "
            f"({printable(str(error), 200)}). Tell the author of {snapshot.package}."
        )
        raise PackageError(msg) from None


def _refuse_shadows(snapshot: Snapshot) -> None:
    """Refuse a package whose modules are called as another's, or were imported unchecked."""
    for top in sorted(snapshot.tops):
        if top in sys.stdlib_module_names:
            _refuse_shadow(snapshot, top, "a module of Python itself")
        if any(top in other.tops for other in _LOADED.values()):
            _refuse_shadow(snapshot, top, "a module of another package")
        places = set(_places(top))
        own = {str((snapshot.root / path).resolve()) for path in snapshot.files}
        if places - own:
            _refuse_shadow(snapshot, top, f"what lies in {sorted(places - own)[0]}")
        if top in sys.modules:
            msg = (
                f"{top} of the package {snapshot.package} was imported before its files were "
                "checked: start Python anew, and do not import it yourself."
            )
            raise PackageError(msg)


def _refuse_shadow(snapshot: Snapshot, top: str, what: str) -> None:
    msg = (
        f"the package {snapshot.package} has a module {top}, called as {what}, so that one would "
        "hide the other: rename it, or uninstall the other."
    )
    raise PackageError(msg)


def _places(top: str) -> Iterator[str]:
    """Yield each file that ``import`` could take a name from."""
    for entry in dict.fromkeys(sys.path):
        spec = PathFinder.find_spec(top, [entry or "."])
        if spec is not None and spec.origin is not None:
            yield str(Path(spec.origin).resolve())


def _forget(snapshot: Snapshot) -> None:
    _LOADED.pop(snapshot.package, None)
    _FOUND.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in snapshot.tops]:
        del sys.modules[name]


class _SnapshotLoader(InspectLoader):
    """Makes a module of the bytes of a snapshot; no compiled copy is read or written."""

    def __init__(self, snapshot: Snapshot, path: str, is_package: bool) -> None:
        self._snapshot, self._path, self._is_package = snapshot, path, is_package

    def get_source(self, fullname: str) -> str:
        """Return the text of the module as it was hashed."""
        return decode_source(self._snapshot.files[self._path]) if self._path else ""

    def is_package(self, fullname: str) -> bool:
        """Return whether modules lie beneath it."""
        return self._is_package

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled source."""
        return self.source_to_code(self.get_source(fullname), self.origin)

    @property
    def origin(self) -> str:
        """What a traceback calls the file."""
        package = f"{self._snapshot.package} {self._snapshot.sha256[:_SHOWN]}"
        return f"<{package}>/{self._path}"


class _SnapshotFinder(MetaPathFinder):
    """Finds modules of checked packages in their snapshots, and nowhere else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of a checked package; None for any other."""
        top = fullname.partition(".")[0]
        for snapshot in _LOADED.values():
            if top not in snapshot.tops:
                continue
            if fullname not in snapshot.modules:
                msg = f"{fullname} is none of the files of {snapshot.package} that were hashed"
                raise ModuleNotFoundError(msg, name=fullname)
            place = snapshot.modules[fullname]
            is_package = not place or place.endswith("__init__.py")
            loader = _SnapshotLoader(snapshot, place, is_package)
            return spec_from_loader(fullname, loader, origin=loader.origin, is_package=is_package)
        return None


_FINDER = _SnapshotFinder()
