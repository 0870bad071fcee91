"""What a tracker costs a simulation: rounds with ``--track`` beside rounds without, in pairs.

python -m benchmarks.load.trackers [--rounds 30] [--pairs 5] [--trackers mlflow,tensorboard]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.load.pictures import paired_ratio, round_seconds, write_study

TRACKERS = {
    "mlflow": '[track.mlflow]\naddress = "mlruns"\n',
    "tensorboard": '[track.tensorboard]\nfolder = "tensorboard"\n',
}


def median_round(folder: Path, name: str, tracker: str, study: Path) -> float:
    """Run the study, with a tracker if one is named; return its median round, in seconds."""
    run, words = folder / name, []
    if tracker:
        (folder / f"{tracker}.toml").write_text(TRACKERS[tracker], encoding="utf-8")
        words = ["--track", f"{tracker}.toml"]
    machine = ["--engine", "in-process", "--threads", "1", "--quiet", "--json"]
    subprocess.run(
        [sys.executable, "-m", "wardround.cli", "simulate", study, "--out", run, *machine, *words],
        cwd=folder,
        env={**os.environ, "WARDROUND_USER_FILE": ""},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return statistics.median(round_seconds(run)[1:])  # the first one opens data and networks


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Return for each tracker how many times a round is the one without."""
    said: dict[str, object] = {"rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = write_study(folder, arguments.rounds, arguments.steps)
        for tracker in arguments.trackers.split(","):
            pairs = []
            for number in range(arguments.pairs):
                order = ("", tracker) if number % 2 == 0 else (tracker, "")
                took = {
                    one: median_round(folder, f"{tracker}-{number}-{one or 'none'}", one, study)
                    for one in order
                }
                pairs.append((took[""], took[tracker]))
            said[tracker] = {
                "round_seconds": [[round(one, 4) for one in pair] for pair in pairs],
                "round_time": paired_ratio(pairs),
            }
    return said


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="of each run")
    parser.add_argument("--pairs", type=int, default=5, help="runs with a tracker, and without")
    parser.add_argument("--steps", type=int, default=20, help="of a site's round")
    parser.add_argument("--trackers", default=",".join(TRACKERS), help="of which, with commas")
    sys.stdout.write(json.dumps(measure(parser.parse_args()), indent=2) + "\n")


if __name__ == "__main__":
    main()
