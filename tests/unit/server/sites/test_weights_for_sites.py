"""A site that lacks the weights of a study is sent them once, and keeps nothing else."""

from pathlib import Path

import pytest
import torch
from tests.support.hospitals.town import SOUTH, Reply, Town, TownGrid, make_study, refuses, says

from wardround.client.egress.gateway import Gateway
from wardround.common.errors import ModelError, PolicyError
from wardround.common.flower.messages.content import arrays_of
from wardround.common.messages.instructions import pack_weights, unpack_weights
from wardround.common.models.pretrained import lacks_weights, stored_weights, weights_path
from wardround.common.parameters.model_file import save_model
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.sites.exchange import Node
from wardround.server.sites.readiness import ReadinessPoll
from wardround.server.sites.site_info import describe_sites


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return a study that starts from weights which this machine holds."""
    import hashlib

    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path / "w", {"1.weight": torch.full((8, 1), 3.0)}, {})
    sha256 = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    weights_path(sha256).parent.mkdir(parents=True)
    (tmp_path / "w").rename(weights_path(sha256))
    return with_changes(make_study(), {"model.weights_sha256": sha256})


def file_of(study: Study) -> Path:
    assert study.model.weights_sha256 is not None
    return weights_path(study.model.weights_sha256)


def town_of(study: Study, *north: Reply) -> tuple[TownGrid, Town]:
    town = Town(study, {"north": [*north], "south": [SOUTH]}, {"north", "south"})
    return TownGrid(town), town


def test_only_the_site_that_lacks_them_is_sent_them_and_is_then_ready(study: Study) -> None:
    grid, town = town_of(study, refuses("weights"), says())
    poll = ReadinessPoll(grid, town.names, study)
    for _ in range(3):
        poll.ask(town.connected, poll.connected())
        poll.note()

    assert {*poll.ready(poll.connected())} == {"north", "south"}
    sent = [unpack_weights(message.content) for message in grid.left.values()]
    assert sent.count(file_of(study).read_bytes()) == 1
    assert sent.count(None) == 2


def test_a_site_that_cannot_keep_them_is_left_out_in_words(study: Study) -> None:
    grid, town = town_of(study, refuses("weights"))
    poll = ReadinessPoll(grid, town.names, study)
    for _ in range(3):
        poll.ask(town.connected, poll.connected())
        poll.note()

    assert poll.is_out("north")
    assert "cannot keep the weights" in poll.problem_of("north")
    assert town.asked["north"] == 2


def test_a_server_that_lacks_them_too_says_what_to_run(study: Study) -> None:
    file_of(study).unlink()
    grid, town = town_of(study, refuses("weights"))
    poll = ReadinessPoll(grid, town.names, study)
    for _ in range(3):
        poll.ask(town.connected, poll.connected())
        poll.note()

    assert "and so does this server: run 'wardround model pretrain'" in poll.problem_of("north")


def test_a_simulation_sends_them_too(study: Study) -> None:
    grid, _ = town_of(study, refuses("weights"), says())

    nodes, _ = describe_sites(grid, study)

    assert [node.site for node in nodes] == ["north", "south"]
    assert isinstance(nodes[0], Node)
    assert sum("weights" in arrays_of(m.content) for m in grid.left.values()) == 1


def gateway_of(folder: Path, study: Study, largest: float) -> Gateway:
    folder.mkdir()
    (folder / "manifest.csv").write_text("patient,label,a\np,no,1\n")
    (folder / "site.toml").write_text('name = "north"')
    (folder / "policy.toml").write_text(
        f'approved = ["{study.digest}"]\nprivacy_required = false\nlargest_weight = {largest}\n'
    )
    return Gateway.open(folder, True)


def test_a_site_keeps_the_file_whose_hash_it_approved_and_no_other(
    study: Study, tmp_path: Path
) -> None:
    assert study.model.weights_sha256 is not None
    content, gateway = (
        stored_weights(study.model.weights_sha256),
        gateway_of(tmp_path / "n", study, 10.0),
    )
    file_of(study).unlink()

    with pytest.raises(ModelError, match="not those that the study names"):
        gateway.keep_weights(study, pack_weights(content + b"\0"))
    assert lacks_weights(study)
    gateway.keep_weights(make_study(), pack_weights(content))
    assert lacks_weights(study), "a study that names none keeps none"
    gateway.keep_weights(study, pack_weights(content))

    assert file_of(study).read_bytes() == content
    gateway.keep_weights(study, pack_weights(b"anything"))
    assert file_of(study).read_bytes() == content, "what is there is not written again"


def test_weights_that_a_private_study_may_not_bring_are_not_kept(
    study: Study, tmp_path: Path
) -> None:
    study = with_changes(study, {"privacy.mode": "patient", "privacy.noise_multiplier": 4.0})
    assert study.model.weights_sha256 is not None
    content, gateway = (
        stored_weights(study.model.weights_sha256),
        gateway_of(tmp_path / "n", study, 2.0),
    )
    file_of(study).unlink()

    with pytest.raises(PolicyError):
        gateway.keep_weights(study, pack_weights(content))
    assert lacks_weights(study)
