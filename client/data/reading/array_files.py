"""Images inside .npy and .npz files: never pickles, and never more memory than the file holds."""

import math
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import UnreadableError

CACHED_BYTES = 512 * 2**20  # several sites of one simulation read items of the same .npz in turn

_Key = tuple[Path, int, int, int, str | None]
_cache: OrderedDict[_Key, NDArray[Any]] = OrderedDict()
_cache_lock = threading.Lock()


def open_array(path: Path, array: str | None) -> NDArray[Any]:
    """Return the array of a file: .npy is memory-mapped, a member of .npz is read once a process.

    Args:
        path: A .npy or .npz file.
        array: The member of an .npz file; None where it has one only.

    Returns:
        The array in its own shape, of numbers or booleans.

    Raises:
        UnreadableError: It is not an array file, has no such array, or claims more than it holds.
    """
    try:
        if path.suffix.lower() == ".npy":
            return _numeric(load_array(path, "r"))
        return _numeric(despite_interpreter(lambda: _cached_member(path, array)))
    except UnreadableError:
        raise
    except Exception as error:  # a broken file breaks the readers in many ways; they name files
        msg = (
            f"the array file is missing or damaged ({type(error).__name__}): write it again with "
            "numpy.save or numpy.savez."
        )
        raise UnreadableError(msg) from None


def load_array(path: Path, mode: Literal["r", "c"] | None = None) -> NDArray[Any]:
    """Return the array of a .npy file, never a pickle.

    Args:
        mode: Of the memory map, as in :func:`numpy.load`; None reads the file.

    Raises:
        OSError, ValueError: As :func:`numpy.load` does.
    """

    def read() -> NDArray[Any]:
        array: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
        return array

    return despite_interpreter(read)


def despite_interpreter(read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return what is read; an error of the interpreter itself is no fault of the file.

    numpy parses a header with ``ast``, which before Python 3.11.9 now and then fails with a
    SystemError ("AST constructor recursion depth mismatch", CPython issue 106905) where a garbage
    collection runs Python code in between. Seen once in 2,000 random studies.
    """
    for _ in range(2):
        with suppress(SystemError):
            return read()
    return read()


def forget_arrays() -> None:
    """Let go what was read of archives; it is read again where it is asked for."""
    with _cache_lock:
        _cache.clear()


def read_item(location: Location) -> NDArray[Any]:
    """Return the item of an array file that a location names, or the whole array.

    Returns:
        The item's shape: the array's without its first axis, or the whole array's.

    Raises:
        UnreadableError: There is no such item.
    """
    return item_of(open_array(location.path, location.array), location.index)


def item_of(values: NDArray[Any], index: int | None) -> NDArray[Any]:
    """Return an item of an opened array, or all of it where no index is given.

    Raises:
        UnreadableError: There is no such item.
    """
    if index is None:
        return values
    if values.ndim == 0 or index >= len(values):
        count = len(values) if values.ndim else 0
        msg = (
            f"the array has {count} items, counted from 0, and no item {index}: "
            "mend the number after '#'."
        )
        raise UnreadableError(msg)
    return np.asarray(values[index])


def _numeric(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "buif":
        msg = f"the array holds {values.dtype.kind!r} and not real numbers: save it as numbers."
        raise UnreadableError(msg)
    return values


def _cached_member(path: Path, array: str | None) -> NDArray[Any]:
    found = path.stat()
    key = (path, found.st_mtime_ns, found.st_size, found.st_ino, array)
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        values = _read_member(path, array)
        _cache[key] = values
        while len(_cache) > 1 and sum(v.nbytes for v in _cache.values()) > CACHED_BYTES:
            _cache.popitem(last=False)
        return values


def _read_member(path: Path, array: str | None) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if array is None and len(names) == 1:
            name = names[0]
        elif array is not None and f"{array}.npy" in names:
            name = f"{array}.npy"
        else:
            msg = (
                f"the file has {len(names)} arrays and none of that name: write file.npz#ARRAY#17."
            )
            raise UnreadableError(msg)
        with archive.open(name) as stream:
            _check_size(stream, archive.getinfo(name).file_size)
        with archive.open(name) as stream:
            values: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return values


def _check_size(stream: IO[bytes], size: int) -> None:
    """Compare what the header claims with what is there, before any memory is asked for."""
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != size - stream.tell():
        msg = "the array is not as large as its header says: write the file again."
        raise UnreadableError(msg)
