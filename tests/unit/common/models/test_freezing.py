"""Layers frozen by pattern: they do not change, do not travel, and start from a model folder."""

import hashlib
from pathlib import Path

import pytest
import torch

from wardround.client.session.model_context import ModelContext
from wardround.common.errors import ModelError, StudyError
from wardround.common.models.lora import fingerprint, frozen_names
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained, weights_path
from wardround.common.models.sharing import head_names
from wardround.common.parameters.model_file import save_model
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


def study_of(classes: int = 2, **model: object) -> Study:
    return parse_study(
        {
            "study": {"name": "tiny", "task": "classification"},
            "data": {"classes": [f"c{n}" for n in range(classes)], "size": [16, 16]},
            "model": {
                "network": "small-cnn",
                "features": [4, 8],
                "normalisation": "batch",
                **model,
            },
        }
    )


def names(study: Study) -> list[str]:
    return [*build_network(study, 0).state_dict()]


def test_frozen_numbers_do_not_travel_and_are_the_same_after_a_step() -> None:
    whole = ModelContext.build(study_of(), "cpu")
    body = [n for n in names(study_of()) if n not in head_names(whole.network)]
    context = ModelContext.build(study_of(frozen=[*body]), "cpu")
    assert set(context.layout.frozen) == set(body)
    assert set(context.layout.shared) == set(head_names(context.network))
    assert context.base.keys() == set(body)
    assert fingerprint(context.network) != 0.0
    network, before = context.network.train(), read_parameters(context.network)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    network(torch.randn(8, 1, 16, 16)).square().sum().backward()
    optimiser.step()
    after = read_parameters(network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(head_names(network)), "running means of frozen layers stay too"


def test_a_part_of_a_batch_normalisation_or_all_or_nothing_is_refused_in_words() -> None:
    mean = next(name for name in names(study_of()) if name.endswith("running_mean"))
    with pytest.raises(StudyError, match=r"match all of it, e\.g\."):
        build_network(study_of(frozen=[mean]), 0)
    with pytest.raises(StudyError, match="leaves nothing to train"):
        build_network(study_of(frozen=["*"]), 0)
    with pytest.raises(StudyError, match="matches no parameter"):
        build_network(study_of(frozen=["encoder.*"]), 0)


def test_a_hospital_reads_what_is_frozen_and_what_leaves() -> None:
    body = [n for n in names(study_of()) if n not in head_names(build_network(study_of(), 0))]
    text = " ".join(explain_study(study_of(frozen=body[:1], normalisation="group")).split())
    assert f"but for its numbers whose names match {body[0]}" in text
    assert "all of the network that is not frozen, after training on its patients" in text


def test_training_starts_from_pretrained_weights_but_for_a_head_of_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path))
    given = read_parameters(build_network(study_of(), 7))
    save_model(tmp_path / "w.safetensors", given, {})
    sha256 = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="wardround model pretrain"):
        load_pretrained(build_network(study_of(), 0), study_of(weights_sha256=sha256))
    weights_path(sha256).parent.mkdir()
    (tmp_path / "w.safetensors").rename(weights_path(sha256))
    same = ModelContext.build(study_of(weights_sha256=sha256), "cpu")
    found = read_parameters(same.network)
    assert all(torch.equal(found[name], given[name]) for name in given)
    study = study_of(classes=3, weights_sha256=sha256)
    other, heads = build_network(study, 0), set(head_names(build_network(study, 0)))
    fresh = read_parameters(other)
    load_pretrained(other, study)
    now = read_parameters(other)
    for name in given:
        assert torch.equal(now[name], fresh[name] if name in heads else given[name]), name
    assert frozen_names(other) == ()
    wider = study_of(features=[8, 8], weights_sha256=sha256)
    with pytest.raises(ModelError, match="do not fit the network"):
        load_pretrained(build_network(wider, 0), wider)
