"""What a round costs between real processes: trivial work, two sites, beside stock Flower.

A server and two daemons over mutual TLS on loopback, and a plain Flower app on a SuperLink and two
SuperNodes with TLS; in turn. Stock Flower trains once with torch and once without, which it imports
for each message. Linux only.

    python -m benchmarks.federation [--repeats 2] [--rounds 30] [--stock-rounds 4]
"""

import argparse
import os
import signal
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.flower_deployment import StockTerms, run_flower
from benchmarks.support.deployed_run import DeployedRun
from benchmarks.support.federation_job import TINY
from benchmarks.support.processes import machine
from benchmarks.support.wardround_deployment import run_wardround

TARGET_SECONDS = 1.0
OURS, STOCK, BARE = "wardround", "stock Flower", "stock Flower, no torch"
_DEADLINE_SECONDS = 180.0


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--stock-rounds", type=int, default=4)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is then ended
    print(machine(), flush=True)
    runs: dict[str, list[DeployedRun]] = {}
    with tempfile.TemporaryDirectory() as name:
        for number in range(arguments.repeats):
            rounds, stock_rounds = arguments.rounds, arguments.stock_rounds
            for title, run in _federations(rounds, stock_rounds).items():
                folder = Path(name) / f"{number}-{title.replace(' ', '-').replace(',', '')}"
                folder.mkdir()
                runs.setdefault(title, []).append(run(folder))
    _print_table(runs)
    _print_ratios(runs)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def _federations(rounds: int, stock_rounds: int) -> dict[str, Callable[[Path], DeployedRun]]:
    def stock(work: str) -> Callable[[Path], DeployedRun]:
        terms = StockTerms(work, stock_rounds, _DEADLINE_SECONDS)
        return lambda folder: run_flower(folder, TINY, terms)

    def ours(folder: Path) -> DeployedRun:
        return run_wardround(folder, TINY, rounds, _DEADLINE_SECONDS)

    return {OURS: ours, STOCK: stock("step"), BARE: stock("scale")}


def _print_table(runs: dict[str, list[DeployedRun]]) -> None:
    print("\n| | s a round | from, to | CPU s a round | start-up s | memory MB | rounds |")
    print("|---|---|---|---|---|---|---|")
    for title, several in runs.items():
        seconds = [one for run in several for one in run.round_seconds]
        if not seconds:
            print(f"| {title} | - | - | - | - | - | 0 |")
            continue
        cpu = statistics.mean(one for run in several for one in run.cpu_seconds)
        start_up = statistics.median(run.start_up_seconds for run in several if run.round_seconds)
        memory = statistics.median(run.usage.memory_mb for run in several)
        cells = (
            f"{statistics.median(seconds):.2f} | {min(seconds):.2f}, {max(seconds):.2f} | {cpu:.2f}"
        )
        print(f"| {title} | {cells} | {start_up:.1f} | {memory:.0f} | {len(seconds)} |")
    for title, several in runs.items():
        for failure in filter(None, (run.failure for run in several)):
            print(f"{title}: {failure}")


def _print_ratios(runs: dict[str, list[DeployedRun]]) -> None:
    usual = {
        title: statistics.median(one for run in several for one in run.round_seconds)
        for title, several in runs.items()
        if any(run.round_seconds for run in several)
    }
    if OURS not in usual:
        return
    print(f"\na round: {usual[OURS]:.2f} s (at most {TARGET_SECONDS:g})")
    for title in (STOCK, BARE):
        if title in usual:
            print(f"{title} / wardround: {usual[title] / usual[OURS]:.0f}")


if __name__ == "__main__":
    main()
