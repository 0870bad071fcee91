"""What ``wardround federation try`` does once its words are read."""

import json
import shlex
import sys
from contextlib import suppress

from wardround.server.checkpoints.lost_sites import lost_words
from wardround.simulations.cli.progress import watching
from wardround.simulations.cli.simulate import Options, resolve_study
from wardround.simulations.local_federation.run import Tried, TryRequest, try_federation
from wardround.simulations.run_files.folder import unused_folder

_STOPPED_CODE = 130  # 128 + SIGINT, as shells count


def run_try(options: Options) -> int:
    """Try a federation, show it live, print what came of it, and return the exit code."""
    study = resolve_study(options)
    out = options.out or unused_folder("federation")
    request = TryRequest(study, out, options.data_root, options.threads)
    quiet = options.quiet or options.as_json
    try:
        with watching(quiet) as watch:
            tried = try_federation(request, watch)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may have been closed
            sys.stderr.write(f"\nStopped, and every process with it. What is done lies in {out}.\n")
        return _STOPPED_CODE
    if options.as_json:
        sys.stdout.write(json.dumps(_as_json(tried)) + "\n")
    else:
        _print(tried)
    return 0


def _print(tried: Tried) -> None:
    run, server = tried.details.summary, shlex.quote(str(tried.server))
    site = shlex.quote(str(tried.sites[0]))
    sys.stdout.write(
        f"{len(tried.sites)} sites trained {run.study} for {run.round} rounds, over TLS, each with "
        f"a process of its own{_lost(tried)}{_change(tried)}\n"
        f"Model: {tried.model}\n"
        "All processes have ended. What they left can be looked at:\n"
        f"  wardround site audit show {site}      what left this site\n"
        f"  wardround server start {server}      the server again, as an operator starts it\n"
        f"  wardround site start {site}      the site again, as a hospital starts it\n"
    )


def _lost(tried: Tried) -> str:
    """Return which sites were missing, for the first line."""
    run = tried.details.summary
    lost = lost_words(run.without, run.missed, run.round)
    return f", {lost}" if lost else ""


def _change(tried: Tried) -> str:
    """Return the metric of the first and the last model that was measured, in words."""
    measured = [(one.measured_round, one.value) for one in tried.details.history]
    known = [(number, value) for number, value in measured if value is not None]
    if not known:
        return "."
    (first, before), (last, after) = known[0], known[-1]
    metric = tried.details.summary.metric
    return f": {metric} {before:.4f} after round {first}, {after:.4f} after round {last}."


def _as_json(tried: Tried) -> dict[str, object]:
    summary = tried.details.summary
    return {
        "run": summary.run,
        "digest": summary.digest,
        "rounds": summary.round,
        "without": list(summary.without),
        "missed": summary.missed,
        "metric": summary.metric,
        "values": {str(one.measured_round): one.value for one in tried.details.history},
        "seconds": [one.seconds for one in tried.details.history if one.sites],
        "model": str(tried.model),
        "server": str(tried.server),
        "sites": [str(folder) for folder in tried.sites],
    }
