"""Which choices of a strategy fit together, and to which study; each refusal says why."""

from collections.abc import Callable, Iterator

from wardround.common.errors import known_names
from wardround.common.files.packages.references import reference_of
from wardround.common.study.plans.strategy import (
    AGGREGATION_RULES,
    FLOWER,
    MEANS,
    OBJECTIVES,
    PRESETS,
    ROBUST,
    SERVER_OPTIMISERS,
    SHARING,
    StrategyPlan,
    plan_of,
)
from wardround.common.study.registry import MOST_MOMENTS
from wardround.common.study.study import Study

# Who reads an option; a name with "flower:" stands for all that begin with it.
_READERS: dict[str, tuple[str, ...]] = {
    "proximal_weight": ("proximal",),
    "dynamic_weight": ("dynamic",),
    "contrastive_weight": ("contrastive",),
    "contrastive_temperature": ("contrastive",),
    "feature_weight": ("small-features", "aligned-features", "coral"),
    "head_fraction": ("head-then-body",),
    "personal_weight": ("personal-model",),
    "mixture": ("mixture",),
    "finetune_steps": ("fine-tune",),
    "fairness": ("fair-mean",),
    "assumed_hostile": (*ROBUST, "flower:Krum", "flower:MultiKrum", "flower:Bulyan"),
    "weight_cap": ROBUST,
    "norm_bound": ("norm-bounded-mean", "centred-clipping"),
    "trim_fraction": ("flower:FedTrimmedAvg",),
    "server_learning_rate": ("sgd", "momentum", "adam", "yogi", "adagrad", "flower:"),
    "server_momentum": ("momentum", "flower:FedAvgM"),
    "server_betas": ("adam", "yogi", "flower:FedAdam", "flower:FedYogi"),
    "server_epsilon": ("adam", "yogi", "adagrad", "flower:Fed"),
}
# Networks whose default normalisation has no numbers of its own.
_BARE = ("small-cnn", "mlp", "unet")
# Networks whose default normalisation is one over the batch.
_BATCHED = ("attention-unet", "densenet121", "resnet18", "resnet50", "efficientnet-b0")


def strategy_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, reason, remedy) for every rule that the strategy breaks."""
    unknown = list(_unknown(study))
    yield from unknown
    if unknown:
        return
    plan = plan_of(study)
    for rule in _RULES:
        yield from rule(study, plan)


def _unknown(study: Study) -> Iterator[str]:
    chosen = study.federation
    if chosen.strategy.startswith(FLOWER):
        yield from _unknown_stock(chosen.strategy)
    elif chosen.strategy not in PRESETS and reference_of(chosen.strategy) is None:
        yield known_names("strategy", chosen.strategy, PRESETS)
    if chosen.share is not None and chosen.share not in SHARING:
        yield known_names("federation.share", chosen.share, SHARING)
    if chosen.objective is not None and chosen.objective not in OBJECTIVES:
        yield known_names("federation.objective", chosen.objective, OBJECTIVES)
    if chosen.aggregation is not None and chosen.aggregation.startswith(FLOWER):
        yield from _unknown_stock(chosen.aggregation)
    elif chosen.aggregation is not None and not _is_known_rule(chosen.aggregation):
        yield known_names("federation.aggregation", chosen.aggregation, AGGREGATION_RULES)
    if chosen.server_optimiser is not None and chosen.server_optimiser not in SERVER_OPTIMISERS:
        yield known_names("federation.server_optimiser", chosen.server_optimiser, SERVER_OPTIMISERS)


def _is_known_rule(name: str) -> bool:
    return name in AGGREGATION_RULES or reference_of(name) is not None


def _unknown_stock(name: str) -> Iterator[str]:
    from wardround.common.study.plans.flower_strategies import stock_names

    known = [FLOWER + stock for stock in stock_names()]
    if name not in known:
        yield known_names("strategy", name, known)


def _options_are_read(study: Study, plan: StrategyPlan) -> Iterator[str]:
    choices = (plan.objective, plan.aggregation, plan.server_optimiser)
    for option in sorted(plan.options.model_fields_set):
        readers, value = _READERS.get(option), getattr(plan.options, option)
        # A study that has travelled names every option, also those left as they are.
        if readers is None or value in (None, type(plan.options).model_fields[option].default):
            continue
        if not any(_reads(reader, choice) for reader in readers for choice in choices):
            yield (
                f"federation.options.{option} has no effect on this strategy "
                f"(it is for {', '.join(readers)}): remove it."
            )


def _reads(reader: str, choice: str) -> bool:
    return choice.startswith(reader) if reader.startswith(FLOWER) else choice == reader


def _sharing_fits(study: Study, plan: StrategyPlan) -> Iterator[str]:
    model = study.model
    bare = model.normalisation == "none" or (
        model.normalisation == "default" and model.network in _BARE
    )
    if plan.share == "all-but-normalisation" and _only_a_head(study):
        yield (
            f"federation.share = {plan.share!r} keeps nothing at a site, since this network is one "
            "layer without a normalisation: list hidden layers in model.features."
        )
    elif plan.share == "all-but-normalisation" and bare:
        yield (
            f"federation.share = {plan.share!r} keeps nothing at a site, since the "
            f"normalisation of {model.network} has no numbers here: set model.normalisation."
        )
    if plan.share == "all-but-head" and _only_a_head(study):
        yield (
            f"federation.share = {plan.share!r} leaves nothing to share, since this network is "
            "one layer: list hidden layers in model.features."
        )
    if plan.share == "adapters" and not model.adapted:
        yield (
            "federation.share = 'adapters' needs adapters or frozen numbers: set "
            "model.adapter_rank or model.frozen."
        )
    if plan.share == "all-but-normalisation" and model.adapter_rank is not None:
        yield (
            f"federation.share = {plan.share!r} keeps nothing at a site, since model.adapter_rank "
            "freezes the normalisations: choose another strategy, or remove adapter_rank."
        )


def _objective_fits(study: Study, plan: StrategyPlan) -> Iterator[str]:
    training = study.training
    if plan.objective == "control-variates" and training.optimiser != "sgd":
        yield (
            f"training.optimiser = {training.optimiser!r} does not fit control variates, which "
            "read a mean gradient off the distance walked (Karimireddy et al. 2020, option II), "
            "and only sgd walks along gradients: set training.optimiser = 'sgd'."
        )
    if plan.aggregation == "fair-mean" and training.optimiser != "sgd":
        yield (
            f"training.optimiser = {training.optimiser!r} does not fit 'fair-mean', which weighs "
            "each change by 1 / learning rate (Li et al. 2020, algorithm 2), and only sgd's "
            "changes are that long: set training.optimiser = 'sgd'."
        )
    if plan.objective == "contrastive":
        if study.task.dense or study.task.boxes:
            yield (
                "the contrastive objective compares one feature vector an image (Li et al. 2021), "
                f"which {study.study.task} does not have: choose another strategy."
            )
        if _only_a_head(study):
            yield (
                "the contrastive objective needs features, and this network is one layer: "
                "list hidden layers in model.features."
            )
    if plan.objective == "head-then-body" and plan.share != "all-but-head":
        yield "the objective 'head-then-body' needs federation.share = 'all-but-head'."
    if plan.objective in ("personal-model", "mixture") and training.precision == "float16":
        yield (
            "a personal twin beside the shared model would need a second scale for float16: "
            "set training.precision = 'bfloat16' or 'float32'."
        )


def _features_fit(study: Study, plan: StrategyPlan) -> Iterator[str]:
    if plan.objective in ("small-features", "aligned-features", "coral") and _only_a_head(study):
        yield (
            f"the objective {plan.objective!r} needs features, and this network is one layer: list "
            "hidden layers in model.features."
        )
    if plan.objective == "coral":
        yield from _coral_fits(study, plan)
    if plan.objective != "aligned-features":
        return
    chosen = study.model.normalisation
    if chosen != "batch" and not (chosen == "default" and study.model.network in _BATCHED):
        yield (
            "the objective 'aligned-features' holds features to the running statistics of batch "
            f"normalisations, and model.normalisation = {chosen!r} of {study.model.network} keeps "
            "none: set it to 'batch', or choose 'coral', which needs no normalisation."
        )
    if plan.share == "all-but-normalisation":
        yield (
            "the objective 'aligned-features' holds features to statistics that all sites share, "
            f"and federation.share = {plan.share!r} leaves them at each site: choose another."
        )


def _coral_fits(study: Study, plan: StrategyPlan) -> Iterator[str]:
    if study.model.adapter_rank is not None:
        yield (
            "the objective 'coral' sends moments of features with the whole network, and "
            "model.adapter_rank sends adapters alone: remove one of the two."
        )
    if max(study.model.features or (0,)) > MOST_MOMENTS:
        yield (
            f"the objective 'coral' sends second moments of at most {MOST_MOMENTS} features, the "
            f"square of as many numbers, and model.features = {list(study.model.features or ())} "
            "has more: choose narrower layers, or 'small-features'."
        )
    if plan.share == "all-but-head":
        yield (
            "the objective 'coral' holds features to moments that all sites share beside the last "
            "layer, and federation.share = 'all-but-head' leaves it at each site: choose another."
        )
    if study.federation.secure_aggregation:
        yield (
            "the objective 'coral' sends second moments of features, which have no largest value, "
            "and federation.secure_aggregation = true sums numbers of a range: choose "
            "'small-features', or send updates without masks."
        )


def _attack_fits(study: Study, plan: StrategyPlan) -> Iterator[str]:
    if study.training.adversarial is not None and plan.objective in ("personal-model", "mixture"):
        yield (
            "training.adversarial changes images against the shared model, and the objective "
            f"{plan.objective!r} trains a second one beside it: remove one of the two."
        )


def _steps_fit(study: Study, plan: StrategyPlan) -> Iterator[str]:
    if (plan.objective == "dynamic") != (plan.server_optimiser == "dynamic"):
        yield (
            "the objective 'dynamic' and the server step 'dynamic' correct the same drift at both "
            "ends (Acar et al. 2021, algorithm 1): choose both or neither."
        )
    if plan.objective in ("control-variates", "dynamic") and plan.aggregation not in MEANS:
        yield (
            f"federation.aggregation = {plan.aggregation!r} does not fit the objective "
            f"{plan.objective!r}, whose corrections cancel in a mean only: choose one of "
            f"{', '.join(MEANS)}."
        )
    whole = plan.aggregation == "in-turn" or plan.aggregation.startswith(FLOWER)
    if whole and plan.server_optimiser != "replace":
        yield (
            f"federation.server_optimiser = {plan.server_optimiser!r} does not fit "
            f"{plan.aggregation!r}, which gives the next model itself: set it to 'replace'."
        )


def _buffer_fits(study: Study, plan: StrategyPlan) -> Iterator[str]:
    federation = study.federation
    if federation.buffer_size is None:
        return
    if plan.keeps_state or plan.aggregation not in MEANS:
        yield (
            f"federation.buffer_size does not fit strategy {federation.strategy!r}, which compares "
            "or remembers sites round by round: use fedavg, fedprox or a server optimiser."
        )
    if federation.fraction < 1 or federation.deadline_seconds is not None:
        yield (
            "federation.buffer_size takes whoever is ready: remove fraction and deadline_seconds."
        )


def _mean_fits(study: Study, plan: StrategyPlan) -> Iterator[str]:
    training, federation = study.training, study.federation
    walked = [
        choice
        for choice in (plan.objective, plan.aggregation)
        if choice in ("control-variates", "dynamic", "normalised-mean", "fair-mean")
    ]
    for choice in walked:
        if training.ema is not None:
            yield (
                f"training.ema = {training.ema:g} sends the mean of a round's networks, and "
                f"{choice!r} reads a gradient off the distance to its last one: remove one of them."
            )
        if training.nesterov and choice != "dynamic":
            yield (
                f"training.nesterov goes further along each gradient than {choice!r} reckons with: "
                "remove one of the two."
            )
    if federation.ema is not None and federation.buffer_size is not None:
        yield (
            f"federation.ema = {federation.ema:g} is a mean over rounds, and with "
            "federation.buffer_size there are none: remove one of the two."
        )


def _only_a_head(study: Study) -> bool:
    return study.model.network == "mlp" and study.model.features == ()


_RULES: tuple[Callable[[Study, StrategyPlan], Iterator[str]], ...] = (
    _options_are_read,
    _sharing_fits,
    _objective_fits,
    _features_fit,
    _attack_fits,
    _steps_fit,
    _buffer_fits,
    _mean_fits,
)
