"""A model of 200 MB between real processes: two sites, loopback, beside stock Flower.

Random float32 all of it, so that nothing can be compressed or taken for something that was sent
before; the work on it is one step. Stock Flower keeps its post in memory, its default, and then in
a database; it may fail, and is stopped when it takes too long. Loopback is counted for the whole
machine: let nothing else talk on it. Linux only; 7 GB of memory, 3 GB of disk.

    python -m benchmarks.large_model [--megabytes 200] [--rounds 4] [--stock memory,database]
"""

import argparse
import os
import signal
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.flower_deployment import StockTerms, run_flower
from benchmarks.support.deployed_run import DeployedRun
from benchmarks.support.federation_job import SITES, Perceptron, of_size
from benchmarks.support.post_watch import PostWatch
from benchmarks.support.processes import machine
from benchmarks.support.wardround_deployment import run_simulated, run_wardround
from benchmarks.support.watching import watching
from wardround.server.link.address import LINK_FOLDER
from wardround.simulations.local_federation.processes import SERVER_FOLDER

OURS, ALONE = "wardround", "wardround, one process"
_OURS_SECONDS = 240.0
_DATABASE = "database"


@dataclass(frozen=True)
class Posted:
    """A run, and what passed between its processes.

    Attributes:
        post: It looked at loopback, and at where messages lie on disk.
    """

    run: DeployedRun
    post: PostWatch


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--stock", default="memory,database", help="of these, or none")
    parser.add_argument("--stock-rounds", type=int, default=3)
    parser.add_argument("--stock-seconds", type=float, default=100.0, help="when it is stopped")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is then ended
    network = of_size(arguments.megabytes)
    print(machine())
    print(f"a model of {network.megabytes:.1f} MB, {len(SITES)} sites", flush=True)
    heads = "s a round | from, to | CPU s a round | sent a round, models"
    print(f"\n| | {heads} | disk MB | memory MB | rounds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    found = {}
    for title, measure in _federations(network, arguments).items():
        with tempfile.TemporaryDirectory() as name:
            found[title] = measure(Path(name) / "job")
        _print_row(title, found[title], network)
    for title, posted in found.items():
        print(f"{title}: {posted.run.failure or 'no failure'}")
    _print_processes(found, network)
    _print_stored(found[OURS], network)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def _federations(
    network: Perceptron, arguments: argparse.Namespace
) -> dict[str, Callable[[Path], Posted]]:
    def ours(folder: Path) -> Posted:
        folder.mkdir()
        with watching(PostWatch(folder / SERVER_FOLDER / LINK_FOLDER)) as post:
            return Posted(run_wardround(folder, network, arguments.rounds, _OURS_SECONDS), post)

    def stock(kind: str) -> Callable[[Path], Posted]:
        def measure(folder: Path) -> Posted:
            place = folder / _DATABASE
            place.mkdir(parents=True)
            database = str(place / "state.db") if kind == _DATABASE else ""
            rounds, seconds = arguments.stock_rounds, arguments.stock_seconds
            with watching(PostWatch(place)) as post:
                terms = StockTerms("scale", rounds, seconds, database)
                return Posted(run_flower(folder, network, terms), post)

        return measure

    def standalone(folder: Path) -> Posted:
        folder.mkdir()
        with watching(PostWatch(folder / "nothing")) as post:
            return Posted(run_simulated(folder, network, arguments.rounds), post)

    kinds = [kind for kind in arguments.stock.split(",") if kind not in ("", "none")]
    return {
        OURS: ours,
        ALONE: standalone,
        **{f"stock Flower, {kind}": stock(kind) for kind in kinds},
    }


def _print_row(title: str, posted: Posted, network: Perceptron) -> None:
    run, post = posted.run, posted.post
    seconds, first = run.round_seconds, "- | - | - | -"
    if seconds:
        first = f"{statistics.median(seconds):.1f} | {min(seconds):.1f}, {max(seconds):.1f}"
        first += f" | {statistics.mean(run.cpu_seconds):.1f}"
        first += f" | {post.passed_a_round(run.ended_rounds) / network.megabytes / 1e6:.2f}"
    last = f"{post.most_stored / 1e6:.0f} | {run.usage.memory_mb:.0f} | {len(seconds)}"
    print(f"| {title} | {first} | {last} |", flush=True)


def _print_processes(found: dict[str, Posted], network: Perceptron) -> None:
    print("\n| the largest process | peak MB | models |")
    print("|---|---|---|")
    for title, posted in found.items():
        for role, peak in sorted(posted.run.usage.largest_mb.items()):
            models = peak * 2**20 / 1e6 / network.megabytes
            print(f"| {title}: {role} | {peak:.0f} | {models:.1f} |")


def _print_stored(ours: Posted, network: Perceptron) -> None:
    """Say how often a round's model was stored on its way to the sites."""
    if len(ours.run.ended_rounds) < 2:  # between two of them
        return
    written = ours.post.written_a_round(ours.run.ended_rounds) / 1e6 / network.megabytes
    print(
        f"\nwritten to the link's disk in a round: {written:.2f} models, {len(SITES)} of them the "
        f"sites' answers; so the round's own is stored {written - len(SITES):.2f} times"
    )


if __name__ == "__main__":
    main()
