"""Random studies: every task, network, loss, strategy, sampling, precision and privacy mode.

Each section is drawn so that most of what comes out fits together. What does not is refused by the
study's own rules, and another one is drawn.
"""

from hashlib import sha256
from random import Random

from safetensors.torch import save
from tests.studies.draft import Chance, Content, Draft
from tests.studies.drawn_sections import (
    data_section,
    evaluation_section,
    federation_section,
    model_section,
    privacy_section,
    simulation_section,
    training_section,
)
from tests.studies.drawn_together import give_recipe, give_sizes, harmonise, let_lack
from tests.studies.patients import Kind

from wardround.common.errors import ModelError, StudyError
from wardround.common.models.networks.registry import build_network, require_network
from wardround.common.models.pretrained import load_pretrained, store_weights
from wardround.common.models.start import WeightsOrigin
from wardround.common.parameters.arithmetic import digest
from wardround.common.study.loading import parse_study, require_simulation, with_changes
from wardround.common.study.plans.strategy import (
    ROBUST,
)
from wardround.common.study.study import Study


def draw_study(seed: int, manifest: str) -> tuple[Study, Kind]:
    """Return the study of a seed, with the kind of its images; ``study check`` lets it pass."""
    chance = Chance(seed)
    while True:
        content, kind = _content(Draft(chance))
        content["simulation"]["options"] = {"manifest": manifest}
        try:
            study = parse_study(content)
            require_simulation(study)
            require_network(study)
            masked = _masked(started(study, chance), Random(seed))
            return _continued(masked, Random(seed + 1)), kind
        except (StudyError, ModelError):
            continue


def _content(draft: Draft) -> tuple[Content, Kind]:
    """Return what the file says, with the kind of its images."""
    content: Content = {
        "study": {"name": "drawn", "task": draft.task},
        "data": data_section(draft),
        "model": model_section(draft),
        "training": training_section(draft),
        "federation": federation_section(draft),
        "evaluation": evaluation_section(draft),
        "simulation": simulation_section(draft),
    }
    give_sizes(draft, content)
    give_recipe(draft, content)
    let_lack(draft, content)
    harmonise(draft, content)
    if draft.privacy != "none":
        content["privacy"] = privacy_section(draft)
    if draft.privacy == "site":
        content["evaluation"]["keep"] = "last"
    return content, draft.kind


def started(study: Study, chance: Chance) -> Study:
    """Return a study that starts from weights, which are made here, or with a part frozen.

    The weights go where ``wardround model pretrain`` puts them. Some lack a layer, and some were
    made for another task.

    Raises:
        StudyError, ModelError: ``wardround study check`` says that it does not fit.
    """
    if not chance.seldom():
        return study
    model: Content = {}
    plain = with_changes(study, {"model.adapter_rank": None}) if study.model.adapter_rank else study
    state = dict(build_network(plain, seed=7).state_dict())
    layers = [name.rpartition(".")[0] for name in state]
    if chance.mostly(True, False):
        lost = chance.choice(layers) if chance.seldom() else None
        tensors = {
            name: tensor.detach().clone().contiguous()
            for name, tensor in state.items()
            if lost is None or name.rpartition(".")[0] != lost
        }
        task = chance.mostly(study.study.task, "pretraining")
        content = save(tensors, WeightsOrigin("made", "", "drawn", task, "none").as_metadata())
        model["model.weights_sha256"] = sha256(content).hexdigest()
        store_weights(model["model.weights_sha256"], content)
    if study.model.adapter_rank is None and chance.mostly(True, False):
        # A whole layer, or half of one; "*.bias" halves them all.
        ending = chance.mostly("*", ".weight", ".bias")
        model["model.frozen"] = [f"{chance.mostly(chance.choice(layers), '*')}{ending}"]
    changed = with_changes(study, model) if model else study
    require_network(changed)
    load_pretrained(build_network(changed, study.federation.seed), changed)
    return changed


def _masked(study: Study, chance: Random) -> Study:
    """Return one study in six with masked updates, where it can have them.

    The draw is one of its own: what else is drawn of a seed does not change.
    """
    if chance.random() > 1 / 6:
        return study
    changes: dict[str, object] = {
        "federation.secure_aggregation": True,
        "federation.compression": "none",
        "evaluation.keep": "last",
        "evaluation.pack": (),
        "simulation.sites": chance.randint(3, 4),
        "federation.masks.clip_norm": chance.choice((None, 1.0)),
        "federation.masks.word_bits": 32 if study.federation.aggregation == "mean" else 64,
    }
    if study.federation.aggregation in ROBUST:
        changes |= {
            "federation.masks.groups": 3,
            "federation.minimum_sites": 9,
            "federation.options.assumed_hostile": 0,
            "simulation.sites": 9,
        }
    try:
        masked = with_changes(study, changes)
        require_simulation(masked)
    except StudyError:
        return study
    return masked


def _continued(study: Study, chance: Random) -> Study:
    """Return one study in six that comes in waves, mostly as one that goes on from another.

    The draw is one of its own, as that of masks is.
    """
    if chance.random() > 1 / 6:
        return study
    wave, method = chance.choice([1, 2]), chance.choice(["none", "replay", "ewc", "lwf"])
    held: dict[str, object] = {"continual.wave": wave, "continual.method": method}
    if method == "replay" and chance.random() < 1 / 2:
        held["continual.replay"] = chance.choice([0.1, 0.9])
    try:
        if method in ("ewc", "lwf") or chance.random() < 1 / 2:
            network = build_network(study, seed=7)
            weights = {n: t.detach().clone().contiguous() for n, t in network.state_dict().items()}
            origin = WeightsOrigin("made", "", "drawn", study.study.task, "none", study.digest)
            content = save(weights, origin.as_metadata())
            held["model.weights_sha256"] = sha256(content).hexdigest()
            store_weights(str(held["model.weights_sha256"]), content)
            held["continual.parent"], held["continual.model"] = study.digest, digest(weights)
        continued = with_changes(study, held)
        require_simulation(continued)
        load_pretrained(build_network(continued, study.federation.seed), continued)
    except (StudyError, ModelError):
        return study
    return continued
