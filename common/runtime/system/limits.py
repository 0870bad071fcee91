"""How much of the machine this process may use."""

import os


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """Return how many threads each of several processes computes with, at least one.

    They share the cores, and no process has more threads than OMP_NUM_THREADS says, if it is set:
    on a machine that others use too, threads that wait for each other can cost a hundred times.
    """
    shared = max(1, cores() // max(1, processes))
    most = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(shared, int(most)) if most.isdecimal() and int(most) else shared


def most_open_files() -> int | None:
    """Let this process open as many files as the system allows it, and return how many these are.

    Returns:
        None where there is no limit, or none that is known.
    """
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError):  # some systems say "unlimited" and mean less
        pass
    return None if soft == resource.RLIM_INFINITY else soft
