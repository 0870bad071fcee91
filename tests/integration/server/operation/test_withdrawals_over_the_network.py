"""An operator who is not at the server's machine takes a site out of a run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.studies.tiny_study import Said
from tests.unit.server.scheduling.test_repeat import (
    LATE,
    put_run,
    request,
)

from wardround.common.errors import InputError, RunError
from wardround.server.checkpoints.release import revoked_because
from wardround.server.identity.operator_access import issue_operator
from wardround.server.operators.client import server_at
from wardround.server.operators.grpc_server import operators_served
from wardround.server.operators.messages import WithdrawalAsked
from wardround.server.scheduling.folder import RunFolder
from wardround.server.scheduling.leaving import Question, answer_aside, begin
from wardround.server.scheduling.store import all_runs
from wardround.server.service.installation import init_server
from wardround.server.sites.withdrawal_requests import keep_request
from wardround.simulations.local_federation.processes import free_port

Command = Callable[..., Said]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server folder with a run of three sites, of which west came in the fourth round."""
    folder = tmp_path_factory.mktemp("s") / "server"
    init_server(folder, "Demo", ["localhost"], "127.0.0.1", 8443)
    put_run(folder)
    return folder


@pytest.fixture
def there(server: Path) -> Iterator[tuple[str, ...]]:
    """How an operator on another machine names the server."""
    operator, port = server.parent / "ann", free_port()
    issue_operator(server, "ann", 30, operator)
    with operators_served(server, f"localhost:{port}"):
        yield "--server", f"localhost:{port}", "--identity", str(operator)


@pytest.mark.long
def test_a_site_is_taken_out_of_a_run_over_the_network_as_on_the_servers_machine(
    server: Path, there: tuple[str, ...], wardround: Command
) -> None:
    keep_request(server, request())
    run = all_runs(server)[0].run
    listed = wardround("runs", "withdrawals", *there, "--json")
    assert listed.code == 0, listed.err
    (waiting,) = json.loads(listed.out)
    assert (waiting["site"], waiting["without"], waiting["run"]) == ("west", "site", run)

    words = ("runs", "withdraw", run, "--site", "west")
    planned = json.loads(wardround(*words, *there, "--plan", "--json").out)
    assert planned == json.loads(wardround(*words, "--server", server, "--plan", "--json").out)
    assert (planned["after_round"], planned["asked"], planned["run"]) == (LATE - 1, True, "")
    assert revoked_because(RunFolder(server, run).path) == "", "a plan changes nothing"

    begun = wardround(*words, *there, "--yes")
    assert "west has numbers in the run since round 4" in begun.out
    (repeat,) = [row for row in all_runs(server) if row.run != run]
    assert f"Run {repeat.run} repeats it: its sites approve study {repeat.digest}" in begun.out
    assert "west left the study" in revoked_because(RunFolder(server, run).path)
    assert begin(server, WithdrawalAsked(run, "west")).run == repeat.run, "it is begun once"
    assert "Nobody asks to leave" in wardround("runs", "withdrawals", *there).out


def test_what_cannot_be_done_is_refused_in_a_sentence_and_changes_nothing(
    server: Path, there: tuple[str, ...]
) -> None:
    with (
        server_at(there[1], Path(there[3])) as line,
        pytest.raises(InputError, match="there is no run '--plan'"),
    ):
        line.begin_withdrawal(WithdrawalAsked("--plan", "west"))
    for run, site, said in (
        ("leaving-1", "nowhere", "has a number of 'nowhere'"),
        ("leaving-1", "../west", "has a number of '../west'"),
    ):
        with pytest.raises(InputError, match=said):
            begin(server, WithdrawalAsked(run, site))
    assert len(all_runs(server)) == 1
    assert revoked_because(RunFolder(server, all_runs(server)[0].run).path) == ""


def test_a_process_that_falls_says_nothing_of_how(server: Path) -> None:
    with pytest.raises(RunError, match="the server could not answer: its log says more"):
        answer_aside(server, Question("plan", WithdrawalAsked("leaving-1", 7)))  # type: ignore[arg-type] # as a defect would
