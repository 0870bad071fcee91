"""A server whose study claims to go on from one that a hospital knows, with another model.

The hospital approved a digest that names parent and hash; what the hash is of, it could not see.
But it was sent the parent's models itself, and remembers them.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    instruction_for,
    refusal_of,
    said_by,
    write_policy,
    write_site,
)

from wardround.client.app import close_sessions
from wardround.common.messages.instructions import DESCRIBE, TRAIN
from wardround.common.messages.replies import unpack_refusal
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import store_weights
from wardround.common.models.start import WeightsOrigin
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    close_sessions()
    yield
    close_sessions()


def child_of(weights: Parameters, claimed: Parameters, said: str = STUDY.digest) -> Study:
    """Return a study that starts from weights, and claims others; the file lies on the machine."""
    origin = WeightsOrigin("model", "", STUDY.name, "classification", "", said)
    content = save({n: w.contiguous() for n, w in weights.items()}, origin.as_metadata())
    sha256 = hashlib.sha256(content).hexdigest()
    store_weights(sha256, content)
    changes = {
        "model.weights_sha256": sha256,
        "continual.parent": STUDY.digest,
        "continual.model": digest(claimed),
        "continual.wave": 1,
    }
    return with_changes(STUDY, changes)


def trained_site(folder: Path) -> tuple[Path, Parameters]:
    """Return a hospital that has trained a round of the parent, and the model that it was sent."""
    site = write_site(folder)
    instruction = instruction_for(site)
    assert unpack_refusal(ask(site, TRAIN, instruction)) is None
    return site, instruction.parameters


def poisoned(model: Parameters) -> Parameters:
    return {name: weight + torch.ones_like(weight) for name, weight in model.items()}


def approve(site: Path, study: Study) -> None:
    write_policy(site, approved=f'["{study.digest}"]')


def test_a_model_that_the_site_was_never_sent_is_refused_whatever_its_file_says(
    tmp_path: Path,
) -> None:
    site, sent = trained_site(tmp_path / "north")
    forged = child_of(poisoned(sent), poisoned(sent))
    approve(site, forged)
    assert refusal_of(ask(site, DESCRIBE, study=forged))[1] == "parent"
    assert said_by(site)[-1] == ("refusal", "deny: parent")


def test_the_model_that_it_was_sent_is_taken(tmp_path: Path) -> None:
    site, sent = trained_site(tmp_path / "north")
    honest = child_of(sent, sent)
    approve(site, honest)
    assert unpack_refusal(ask(site, DESCRIBE, study=honest)) is None


def test_weights_that_are_not_what_the_digest_names_are_refused_by_everybody(
    tmp_path: Path,
) -> None:
    site = write_site(tmp_path / "south")  # it had no part in the parent
    model = read_parameters(build_network(STUDY, 1))
    forged = child_of(poisoned(model), model)
    approve(site, forged)
    assert refusal_of(ask(site, DESCRIBE, study=forged))[1] == "input"
    other = child_of(model, model, said="d" * 64)
    approve(site, other)
    assert refusal_of(ask(site, DESCRIBE, study=other))[1] == "input"


def test_a_round_of_an_approved_child_is_refused_too_once_the_site_knows_better(
    tmp_path: Path,
) -> None:
    """As of a site that joined the parent while it was late, and approved the child before."""
    site = write_site(tmp_path / "north")
    stranger = read_parameters(build_network(STUDY, 5))
    child = child_of(stranger, stranger)
    approve(site, child)
    assert unpack_refusal(ask(site, DESCRIBE, study=child)) is None
    write_policy(site, approved=f'["{child.digest}", "{STUDY.digest}"]')
    assert unpack_refusal(ask(site, TRAIN, instruction_for(site))) is None
    asked = instruction_for(site, study=child)
    assert refusal_of(ask(site, TRAIN, asked, child))[1] == "parent"
