"""The server's memory does not grow with the sites: a small version of benchmarks/server_memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
REPOSITORY = Path(__file__).parents[3]


def models_held(rule: str, sites: int) -> float:
    """Return the server's peak memory, in models of 10 MB."""
    command = [sys.executable, "-m", "benchmarks.server_memory", "--measure", "--rules", rule]
    done = subprocess.run(
        [*command, "--sites", str(sites), "--megabytes", "10"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["peak"] / found["model"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mean_over_many_sites_takes_no_more_memory_than_over_few() -> None:
    few, many = models_held("fedavg", 8), models_held("fedavg", 32)
    assert many < 3
    assert many == pytest.approx(few, rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_measured_sees_a_rule_that_needs_all_updates() -> None:
    assert models_held("coordinate-median", 8) > 8


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("rule", ["norm-bounded-mean", "int8"])
def test_a_rule_that_compares_with_the_rounds_model_reads_it_from_disk(rule: str) -> None:
    assert models_held(rule, 6) < 3
