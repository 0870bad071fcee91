"""What a study may ask for beside ``[privacy]``; whatever would read a patient past the noise not.

After the noise everything is allowed: what is computed from a noised gradient, and from nothing
else of the patients, costs no more privacy (post-processing: Dwork and Roth 2014, proposition 2.1).
That is why momentum, compression with its residual, robust combinations and parts that stay at the
site are not refused here.
"""

from collections.abc import Callable, Iterator

from wardround.common.errors import InputError
from wardround.common.files.packages.references import reference_of
from wardround.common.study.plans.gradients import chooses_batch
from wardround.common.study.plans.patient_privacy import (
    DEFAULT_EPSILON,
    MEASURED_PARTS,
    asked_epsilon,
    plan_evaluation,
    plan_privacy,
    steps_of,
)
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.registry import NETWORKS
from wardround.common.study.rules.privacy.distributed_noise import (
    distributed_noise_rules,
    noise_fits,
)
from wardround.common.study.rules.privacy.site_privacy import site_privacy_rules
from wardround.common.study.sections.privacy import PrivacySection
from wardround.common.study.study import Study

LARGEST_DELTA = 1e-2
_ROUNDING = 1.01  # a solved noise is exact to 0.1 %
LARGEST_STEPS = 1_000_000  # of all rounds: the noise for them is found in half a minute

# Modes that read a key of [privacy]; "mode" itself is read by all.
_READERS: dict[str, tuple[str, ...]] = {
    "epsilon": ("patient",),
    "delta": ("patient", "site"),
    "noise_multiplier": ("patient", "site"),
    "noise": ("patient", "site"),
    "colluding_sites": ("patient", "site"),
    "clip_norm": ("patient", "site"),
    "sampling_rate": ("patient",),
    "expected_patients": ("patient",),
    "examples_per_patient": ("patient",),
    "augmentation_copies": ("patient",),
    "microbatch": ("patient",),
    "gradients": ("patient",),
    "largest_weight": ("patient",),
    "validation_epsilon": ("patient",),
    "test_epsilon": ("patient",),
    "adaptive_clipping": ("site",),
    "clip_quantile": ("site",),
    "count_noise": ("site",),
}

# How these objectives read patients outside the noised step. The others correct a noised gradient
# by what was noised before it (client/training/corrections.py), or rest a part of it.
_READING_OBJECTIVES: dict[str, str] = {
    "contrastive": "compares features of a batch in its loss",
    "small-features": "adds features of a batch to its loss",
    "aligned-features": "adds statistics of a batch's features to its loss",
    "coral": "adds covariances of a batch's features to its loss, and sends moments of features",
    "personal-model": "trains a second model on patients without noise",
    "mixture": "trains a second model on patients without noise",
    "fine-tune": "trains on patients without noise before the last test",
    "elastic-weights": "reads old patients' gradients without noise",
    "distillation": "adds a term to the loss of a batch",
}


def privacy_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of privacy that the study breaks.

    Whether the promise can be kept is not among them: :func:`promise_rules` says so.
    """
    yield from _keys_are_read(study.privacy)
    yield from _fixer_fits(study)
    yield from distributed_noise_rules(study)
    if study.privacy.mode == "site":
        yield from site_privacy_rules(study)
    if study.privacy.mode != "patient":
        return
    for rule in _RULES:
        yield from rule(study)


def _keys_are_read(privacy: PrivacySection) -> Iterator[str]:
    # A study that has travelled names every key, also those left as they are.
    for key, readers in _READERS.items():
        value, default = getattr(privacy, key), PrivacySection.model_fields[key].default
        if value != default and privacy.mode not in readers:
            modes = " or ".join(repr(mode) for mode in readers)
            yield (
                f"privacy.{key} = {value} has no effect with privacy.mode = {privacy.mode!r}: "
                f"set the mode to {modes}, or remove it."
            )


def _fixer_fits(study: Study) -> Iterator[str]:
    model, entry = study.model, NETWORKS.get(study.model.network)
    if model.fixer == "none" or entry is None:
        return
    said = f"model.fixer = {model.fixer!r}"
    if model.network in PRIVATE_NETWORKS and not chooses_batch(model):
        yield (
            f"{said} replaces nothing in {model.network}, which has no batch normalisation here: "
            "remove it."
        )
    elif entry.flat and chooses_batch(model):
        yield (
            f"{said} does not fit {model.network}, where a group of a layer would be one number: "
            "remove it, and set model.normalisation = 'layer'."
        )
    elif model.test_time_statistics is not None:
        yield (
            f"{said} replaces the batch normalisation whose statistics model.test_time_statistics "
            "mixes: remove one of the two."
        )


def _network_is_private(study: Study) -> Iterator[str]:
    name, chosen = study.model.network, study.model.normalisation
    entry, gradients = PRIVATE_NETWORKS.get(name), study.privacy.gradients
    if gradients == "opacus" and reference_of(study.loss) is not None:
        yield (
            f"privacy.gradients = 'opacus' sees several patients in one pass, and {study.loss} may "
            "look at all of them: remove it, and each patient takes a pass of its own."
        )
    if name not in NETWORKS:
        return  # said elsewhere
    if entry is None:
        if gradients == "auto":
            yield (
                f"model.network = {name!r} has no verified gradient of a single patient, which "
                "privacy.mode = 'patient' needs: set privacy.gradients = 'loop' (one pass a "
                "patient) or 'opacus' (verified where the network is built), or choose one of "
                f"{', '.join(PRIVATE_NETWORKS)}."
            )
        return
    if gradients == "opacus" and not entry.opacus:
        able = ", ".join(known for known, other in PRIVATE_NETWORKS.items() if other.opacus)
        yield (
            f"privacy.gradients = 'opacus' does not fit {name}, of which Opacus finds no gradient "
            f"of a single patient: remove it, or choose one of {able}."
        )
    if gradients == "opacus" and entry.opacus == "ew" and study.model.activation == "prelu":
        yield (
            f"privacy.gradients = 'opacus' does not fit model.activation = 'prelu' in {name}: its "
            "expanded weights know no activation that learns. Remove one of the two."
        )
    replaced = chooses_batch(study.model) and study.model.fixer != "none"
    if chosen not in entry.normalisations and not replaced:
        allowed = ", ".join(repr(choice) for choice in entry.normalisations)
        yield (
            f"model.normalisation = {chosen!r} mixes the patients of a batch in {name}, so that "
            f"none has a gradient of its own to clip: choose one of {allowed}."
        )


def _training_is_private(study: Study) -> Iterator[str]:
    training = study.training
    if training.class_weights == "balanced":
        yield (
            "training.class_weights = 'balanced' counts a site's patients without noise: give a "
            "number a class, from published figures, or remove it."
        )
    if training.sampling == "balanced":
        yield (
            "training.sampling = 'balanced' draws patients by their class, and privacy.mode = "
            "'patient' draws each with the same probability: remove it."
        )
    if training.gradient_clip is not None:
        yield (
            f"training.gradient_clip = {training.gradient_clip:g} would clip a gradient that is "
            "noised already: remove it; privacy.clip_norm is what clips a patient."
        )
    if training.adversarial is not None:
        yield (
            "training.adversarial asks for more gradients of a patient than the one of each step "
            "that is clipped, noised and paid for: remove it, or set privacy.mode = 'none'."
        )
    if training.precision != "float32":
        yield (
            f"training.precision = {training.precision!r} rounds the norm by which a patient is "
            "clipped: set it to 'float32'."
        )
    if study.data.covariate_scaling == "site":
        yield (
            "data.covariate_scaling = 'site' reads mean and deviation of a site's patients without "
            "noise: set it to 'study' and give each covariate its mean and scale."
        )


def _strategy_is_private(study: Study) -> Iterator[str]:
    try:
        plan = plan_from(study.federation, adapted=study.model.adapted)
    except KeyError:
        return  # an unknown strategy, said elsewhere
    how = _READING_OBJECTIVES.get(plan.objective)
    if how is not None:
        yield (
            f"the objective {plan.objective!r} {how}, which privacy.mode = 'patient' does not "
            "cover: choose another strategy, e.g. fedavg, fedprox, scaffold or fedrep."
        )
    if plan.aggregation == "fair-mean":
        yield (
            "federation.aggregation = 'fair-mean' needs each site's loss on its training patients, "
            "which would leave without noise: choose 'weighted-mean' or 'mean'."
        )


def _nothing_is_chosen_by_patients(study: Study) -> Iterator[str]:
    deadlines = study.federation.patience_rounds
    if deadlines is not None:
        yield (
            f"federation.patience_rounds = {deadlines} would end the training by one measurement, "
            "which has noise under privacy.mode = 'patient': remove it."
        )


def _examples_fit(study: Study) -> Iterator[str]:
    privacy, training = study.privacy, study.training
    if study.data.kind == "image" and study.input_size is None:
        yield (
            "the images may differ in size, so whether a step can be made would depend on who is "
            "drawn: set data.size or training.patch_size."
        )
    if training.patch_size and training.patches_per_image > privacy.examples_per_patient:
        yield (
            f"training.patches_per_image = {training.patches_per_image} is more than a patient may "
            f"give to a step: raise privacy.examples_per_patient = {privacy.examples_per_patient}."
        )
    same = study.data.augmentation == "none" and not training.patch_size
    if privacy.augmentation_copies > 1 and same:
        yield (
            f"privacy.augmentation_copies = {privacy.augmentation_copies} would repeat the same "
            "image: set data.augmentation, or remove it."
        )


def _promise_says_something(study: Study) -> Iterator[str]:
    privacy = study.privacy
    if privacy.delta >= LARGEST_DELTA:
        yield (
            f"privacy.delta = {privacy.delta:g} allows one patient in {round(1 / privacy.delta)} "
            "to be told outright: set it below 1 / (10 x patients of the smallest site), e.g. 1e-5."
        )
    if privacy.epsilon is not None and privacy.noise_multiplier is not None:
        yield (
            f"privacy.epsilon = {privacy.epsilon:g} and privacy.noise_multiplier = "
            f"{privacy.noise_multiplier:g} are both set, and each follows from the other: keep one."
        )


def _measurements_promise_no_less(study: Study) -> Iterator[str]:
    privacy = study.privacy
    epsilon = DEFAULT_EPSILON if privacy.epsilon is None else privacy.epsilon
    if privacy.noise_multiplier is not None:
        return  # what it comes to takes accounting: promise_rules
    for part in MEASURED_PARTS:
        asked = asked_epsilon(privacy, part)
        if asked is not None and asked > epsilon:
            yield _too_dear(part, asked, epsilon)


def _too_dear(part: str, asked: float, epsilon: float) -> str:
    return (
        f"privacy.{part}_epsilon = {asked:g} promises a {part} patient less than the epsilon = "
        f"{epsilon:.4g} of a training patient: lower it, or remove it."
    )


def _steps_can_be_planned(study: Study) -> Iterator[str]:
    steps = steps_of(study) * study.federation.rounds
    if steps > LARGEST_STEPS:
        yield (
            f"{steps} private steps in {study.federation.rounds} rounds are more than the "
            f"{LARGEST_STEPS} that are accounted for: lower federation.rounds or "
            "training.local_steps, or raise privacy.sampling_rate."
        )


def promise_rules(study: Study) -> Iterator[str]:
    """Yield a sentence if the promise of a study that breaks no other rule cannot be kept.

    The noise is solved for, which takes seconds, and half a minute for the longest of studies.
    """
    if study.privacy.mode != "patient":
        yield from noise_fits(study)
        return
    try:
        plan = plan_privacy(study)
        if plan.epsilon == float("inf"):
            yield (
                f"privacy.noise_multiplier = {plan.noise_multiplier:g} promises nothing after "
                f"{plan.planned.steps} steps: raise it, or give privacy.epsilon instead."
            )
            return
        yield from noise_fits(study)
        for part in MEASURED_PARTS:
            plan_evaluation(study, part)
            asked = asked_epsilon(study.privacy, part) or 0.0
            if asked > plan.epsilon * _ROUNDING:
                yield _too_dear(part, asked, plan.epsilon)
    except InputError as error:
        yield f"the promise of [privacy] cannot be planned: {error}"


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _network_is_private,
    _training_is_private,
    _strategy_is_private,
    _nothing_is_chosen_by_patients,
    _examples_fit,
    _promise_says_something,
    _measurements_promise_no_less,
    _steps_can_be_planned,
)
