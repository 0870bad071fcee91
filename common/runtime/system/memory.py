"""What becomes of freed memory: kept warm in a process that trains, given back in a server."""

import ctypes
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt(3)
# A round's tensors are allocated again at once: pages that stay are not zeroed anew.
_KEPT_BYTES = 2**30
_LARGEST_IN_HEAP_BYTES = 32 * 2**20  # the most that glibc accepts
# Larger blocks come from mmap and go back to the system when they are freed.
_RETURNED_BYTES = 2**20
_is_kept = False


def keep_freed_memory() -> None:
    """Tell the C library to reuse memory rather than to give it back; does nothing elsewhere.

    A training step allocates and frees the same few megabytes. glibc hands such blocks back to the
    kernel and asks for zeroed ones at the next step: 200,000 to 350,000 page faults in the
    reference job where a fresh process of plain torch has 70,000, which made its rounds a tenth to
    a third slower.
    """
    global _is_kept  # the C library's settings are the process's, too
    _is_kept = True
    _set(_TRIM_THRESHOLD, _KEPT_BYTES)
    _set(_MMAP_THRESHOLD, _LARGEST_IN_HEAP_BYTES)


def return_freed_memory() -> None:
    """Tell the C library to give large blocks back at once; does nothing elsewhere.

    A server frees one model after the other. glibc learns from that to keep them, in pieces that
    the next one does not fit: the server's peak was up to twice what it used. A process that
    trains too, as in a simulation without workers, keeps its memory, whichever was asked first:
    a round over pictures took twice the CPU seconds where the server's wish came last.
    """
    if _is_kept:
        return
    _set(_MMAP_THRESHOLD, _RETURNED_BYTES)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, AttributeError, TypeError):  # no such library, or no name for the own one
        return


def memory_of(process: int) -> float:
    """Return the resident memory of a process in bytes; 0 where that is not known."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
        words = text.partition("VmRSS:")[2].split()
        return float(words[0]) * 1024
    return 0.0
