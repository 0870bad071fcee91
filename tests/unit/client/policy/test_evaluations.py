"""Measurements without noise are counted on the disk, and a killed process forgets none."""

import random
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from wardround.client.policy.evaluations import EVALUATIONS_FOLDER, count_evaluation
from wardround.client.policy.policy import OPEN_POLICY, Policy
from wardround.client.policy.rules import DeniedError
from wardround.common.errors import PolicyError

TODAY, TOMORROW = date(2026, 11, 28), date(2026, 11, 29)
STUDY, OTHER = "a" * 64, "b" * 64
POLICY = Policy(largest_evaluations_a_day=5, largest_evaluations_of_a_study=7)
CHILD = """
import sys
from datetime import date
from pathlib import Path
from wardround.client.policy.evaluations import count_evaluation
from wardround.client.policy.policy import Policy

policy = Policy(largest_evaluations_a_day=60, largest_evaluations_of_a_study=60)
while True:
    count_evaluation(Path(sys.argv[1]), "a" * 64, policy, date(2026, 11, 28))
    print("measured", flush=True)
"""


def test_a_day_has_so_many_for_all_studies_and_a_study_so_many_for_ever(tmp_path: Path) -> None:
    for digest in (STUDY, STUDY, STUDY, STUDY, OTHER):
        count_evaluation(tmp_path, digest, POLICY, TODAY)
    with pytest.raises(DeniedError, match="largest_evaluations_a_day = 5") as refused:
        count_evaluation(tmp_path, OTHER, POLICY, TODAY)
    assert refused.value.code == "evaluations"
    for _ in range(3):
        count_evaluation(tmp_path, STUDY, POLICY, TOMORROW)
    with pytest.raises(DeniedError, match="largest_evaluations_of_a_study = 7"):
        count_evaluation(tmp_path, STUDY, POLICY, TOMORROW)
    count_evaluation(tmp_path, OTHER, POLICY, TOMORROW)
    names = {path.name for path in (tmp_path / EVALUATIONS_FOLDER).iterdir()}
    assert names == {"day-2026-11-29", f"study-{STUDY}", f"study-{OTHER}"}


def test_a_simulated_site_and_one_that_tells_no_metrics_count_nothing(tmp_path: Path) -> None:
    for policy in (OPEN_POLICY, Policy(metrics="none")):
        count_evaluation(tmp_path, STUDY, policy, TODAY)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_counted_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / EVALUATIONS_FOLDER).write_text("in the way")
    with pytest.raises(PolicyError, match="make room"):
        count_evaluation(tmp_path, STUDY, POLICY, TODAY)


def test_processes_that_are_killed_measure_no_more_than_the_policy_says(tmp_path: Path) -> None:
    drawn, measured = random.Random(5), 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(drawn.random() * 0.01)
        child.kill()
        rest = child.stdout.read()
        child.wait()
        measured += (first + rest).count(b"measured")
        counted = (tmp_path / EVALUATIONS_FOLDER / f"study-{STUDY}").stat().st_size
        assert measured <= counted <= 60
        if counted == 60:
            break
    assert measured > 0
