"""A hospital in two consortia spends one budget, whichever server asks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.hospitals.two_consortia import (
    DELTA,
    LIFETIME,
    private_study,
    train_until_refused,
    write_hospital,
)

from wardround.client.privacy.ledger.entries import Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.report import report_ledger
from wardround.common.privacy.accounting import Spend, epsilon_of

pytestmark = pytest.mark.attacks
ROOT = Path(__file__).parents[2]
FIRST, SECOND = "north-heart", "north-lung"  # the names of the site in its two consortia


def charged_to(folders: list[Path]) -> list[Reserved]:
    """Return every charge of these site folders, each once."""
    chains = {read_ledger(folder).entries for folder in folders}
    return [entry.fact for chain in chains for entry in chain if isinstance(entry.fact, Reserved)]


def epsilon_spent(folders: list[Path]) -> float:
    charged = charged_to(folders)
    return epsilon_of([Spend(f.sampling_rate, f.noise_multiplier, f.steps) for f in charged], DELTA)


def test_two_servers_that_take_turns_do_not_spend_a_patients_budget_twice(tmp_path: Path) -> None:
    """Two processes, two site folders, two studies, one cap."""
    folders = [write_hospital(tmp_path / name, private_study(name)) for name in (FIRST, SECOND)]
    command = [sys.executable, "-m", "tests.support.hospitals.two_consortia"]
    processes = [
        subprocess.Popen(
            [*command, str(folder), other], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for folder, other in zip(folders, (SECOND, FIRST), strict=True)
    ]
    try:
        said = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [one["code"] for one in said] == ["budget", "budget"], "neither made the other fail"
    assert 0.5 * LIFETIME < epsilon_spent(folders) <= LIFETIME
    for one in said:
        assert one["counts"], "both trained"
        assert one["counts"] == list(range(1, len(one["counts"]) + 1)), "each server counts its own"
    assert sum(len(one["counts"]) for one in said) == len(charged_to(folders))


def test_the_second_server_finds_what_the_first_has_left_and_neither_learns_of_the_other(
    tmp_path: Path,
) -> None:
    first, second = (
        write_hospital(tmp_path / name, private_study(name)) for name in (FIRST, SECOND)
    )
    heads, code = train_until_refused(first, private_study(FIRST))
    assert code == "budget"
    assert len(heads) >= 2
    assert train_until_refused(second, private_study(SECOND)) == ([], "budget")
    (dataset,) = report_ledger(read_ledger(second).entries).datasets
    assert {run.study for run in dataset.runs} == {
        private_study(name).digest for name in (FIRST, SECOND)
    }
    assert dataset.epsilon <= LIFETIME
