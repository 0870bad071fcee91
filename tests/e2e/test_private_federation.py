"""A private study across daemons: one hospital's cap is below what the study plans to spend."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.stage import SITES, write_manifest
from tests.support.hospitals.private_tables import DELTA, private_study
from tests.support.studies.tiny_study import Said

from wardround.client.policy.approvals import decide
from wardround.client.privacy.ledger.entries import Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.report import report_ledger
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import LINEAGE, load_model
from wardround.common.privacy.accounting import epsilon_of
from wardround.common.security.lineage import open_envelope, open_line
from wardround.common.security.lineage_verification import verify_lineage
from wardround.common.security.signing_key import open_public_key
from wardround.common.study.plans.patient_privacy import plan_privacy
from wardround.common.study.study import Study
from wardround.server.operators.client import server_at
from wardround.server.operators.messages import RunDetails, Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.server.scheduling.ledger_heads import ServerLedgers
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
ROUNDS, ENOUGH = 4, 100.0
FIRST, CAPPED, THIRD = SITES
Command = Callable[..., Said]
SAID = "budget: it would spend more of the patients' privacy than the hospital's policy allows"
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Town:
    """A server and three hospitals, as processes."""

    folder: Path
    federation: LocalFederation
    manifest: Path

    @property
    def server(self) -> Path:
        return self.federation.server

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name

    def allow(self, name: str, study_epsilon: float, refused: str = "study") -> None:
        (self.site(name) / "policy.toml").write_text(
            f"lifetime_epsilon = 1000.0\nlifetime_delta = {DELTA}\n"
            f'study_epsilon = {study_epsilon!r}\nrefused_above_the_cap = "{refused}"\n'
            "smallest_cohort = 10\nsmallest_cell = 5\n"
        )

    def submit(self, study: Study) -> str:
        for name in SITES:
            decide(self.site(name), study.digest, "approved")
        with server_at(str(self.server)) as line:
            return line.submit(Submission(study.to_toml(), "toml", SITES)).run

    def resume(self, run: str) -> None:
        with server_at(str(self.server)) as line:
            line.resume(run)

    def await_end(self, run: str) -> RunDetails:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self.federation.require_alive()
            with server_at(str(self.server)) as line:
                details = line.show(run)
            if details.summary.is_over:
                return details
            assert time.monotonic() < until, f"hangs: {details.summary}"
            time.sleep(0.1)

    def logs(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "logs").glob("*.log"))

    def spent(self, name: str, study: Study) -> tuple[float, int]:
        """Return the epsilon of a study's training at a site, and how many updates cost it."""
        report = report_ledger(read_ledger(self.site(name)).entries)
        trained = [one for one in report.datasets if one.part == "train"]
        runs = [run for one in trained for run in one.runs if run.study == study.digest]
        return float(sum(run.epsilon for run in runs)), sum(run.reservations for run in runs)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    folder = tmp_path / "t"
    manifest = write_manifest(folder / "data")
    prepare_sites(private_study(manifest, "any", ROUNDS), folder)
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as federation:
        made = Town(folder, federation, manifest)
        federation.make_server()
        federation.start_server()
        for name in SITES:
            federation.join(made.site(name))
            made.allow(name, ENOUGH)
            federation.start_site(made.site(name))
        yield made


def cost_of(study: Study, rounds: int) -> float:
    return epsilon_of([plan_privacy(study).spend(rounds)], DELTA)


@pytest.mark.long
def test_a_cap_below_the_plan_ends_a_study_or_leaves_its_hospital_out_and_the_operator_reads_why(
    town: Town, wardround: Command
) -> None:
    """One test, for the processes take longer to start than everything else."""
    of_three, of_two = (private_study(town.manifest, f"of-{n}", ROUNDS, n) for n in (3, 2))
    run = refused_as_a_whole(town, of_three)
    ends_at_the_cap(town, of_three, run, wardround)
    goes_on_once_the_cap_is_raised(town, of_three, run)
    is_signed_by_all(town, of_three, run)
    goes_on_by_quorum(town, of_two, wardround)
    for name in SITES:
        mark, entries = ServerLedgers(town.server).known(name), read_ledger(town.site(name)).entries
        charged = [entry.hash for entry in entries if isinstance(entry.fact, Reserved)]
        assert mark.hash == charged[mark.entries - 1], "what the server remembers over runs"


def is_signed_by_all(town: Town, study: Study, run: str) -> None:
    """The record of a run that was stopped and resumed has no gap, and names the ledgers' heads."""
    saved = load_model(RunFolder(town.server, run).model_path)
    content, kept = saved.metadata[LINEAGE].encode(), int(saved.metadata["round"])
    found = verify_lineage(content, study.digest, digest(saved.parameters), kept)
    keys = {
        open_public_key(town.site(n) / "keys" / "site.pub").public_bytes_raw().hex(): n
        for n in SITES
    }
    assert found.sites == {key: tuple(range(1, kept + 1)) for key in sorted(keys)}
    assert found.unsigned == 0
    for line in content.splitlines()[1:]:
        for receipt in open_line(line)[0]["predicate"]["receipts"]:
            statement, key = open_envelope(receipt)
            entries = read_ledger(town.site(keys[key])).entries
            head = statement["predicate"]["ledger"]["head"]
            assert head in [entry.hash for entry in entries if isinstance(entry.fact, Reserved)]


def refused_as_a_whole(town: Town, study: Study) -> str:
    """Where the policy refuses whole studies, the hospital is named before the first round."""
    town.allow(CAPPED, 1.01 * cost_of(study, 2))
    run = town.submit(study)
    ended = town.await_end(run)
    assert (ended.summary.state, ended.summary.round) == ("failed", 0)
    assert f"{CAPPED} has no privacy budget left for the study" in ended.summary.message
    assert not (town.site(CAPPED) / "ledger").exists(), "nothing was trained for it"
    return run


def ends_at_the_cap(town: Town, study: Study, run: str, wardround: Command) -> None:
    """Where it refuses rounds, a study that needs every hospital ends at the first of those."""
    cap = 1.01 * cost_of(study, 2)
    town.allow(CAPPED, cap, refused="round")
    town.resume(run)
    ended = town.await_end(run)
    assert (ended.summary.state, ended.summary.round) == ("failed", 2)
    assert town.spent(CAPPED, study)[0] <= cap
    assert town.spent(FIRST, study)[1] == 3, "charged for the round that was not counted"
    shown = " ".join(wardround("runs", "show", run, "--server", town.server).out.split())
    assert "round 3 has 2 updates and needs 3" in shown
    assert f"{CAPPED}: {SAID}" in shown
    status = wardround("site", "status", town.site(CAPPED)).out
    assert "refusal: budget (2 times): it would spend more" in status
    assert "CANARY" not in shown + status + town.logs()


def goes_on_once_the_cap_is_raised(town: Town, study: Study, run: str) -> None:
    town.allow(CAPPED, ENOUGH)
    town.resume(run)
    assert town.await_end(run).summary.state == "finished"
    for name in SITES:
        epsilon, replies = town.spent(name, study)
        assert replies == ROUNDS, "asked again, no site was charged again"
        assert epsilon == pytest.approx(cost_of(study, ROUNDS))


def goes_on_by_quorum(town: Town, study: Study, wardround: Command) -> None:
    """A study that needs two hospitals goes on without the one whose cap is reached."""
    cap = 1.01 * cost_of(study, 2)
    town.allow(CAPPED, cap, refused="round")
    run = town.submit(study)
    details = town.await_end(run)
    assert details.summary.state == "finished"
    taken = {one.round: one.sites for one in details.history if one.sites}
    assert taken == {1: SITES, 2: SITES, 3: (FIRST, THIRD), 4: (FIRST, THIRD)}
    assert town.spent(CAPPED, study)[0] <= cap < cost_of(study, 3)
    assert town.spent(CAPPED, study)[1] == 2
    watched = wardround("runs", "watch", run, "--server", town.server).out
    assert f"round 3: {CAPPED} did not take part: {SAID}" in watched
    ledger = wardround("site", "ledger", "show", town.site(CAPPED)).out
    assert ledger.startswith("Data set main, train patients: epsilon ")
    listed = wardround("sites", "list", "--server", town.server, "--json").out
    assert [site["connected"] for site in json.loads(listed)] == [True, True, True]
    assert "CANARY" not in watched + ledger + listed + town.logs()
