"""How much of the machine this process may use."""

import os


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
