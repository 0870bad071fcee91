"""A strategy is four choices; a preset is a row that fills them in; a study may override each.

What is shared, how a site trains, how updates combine, and what the server does with the result.
"""

from dataclasses import dataclass, replace

from wardround.common.files.packages.references import reference_of
from wardround.common.study.sections.federation import FederationSection, StrategyOptions
from wardround.common.study.study import Study

FLOWER = "flower:"  # before the name of a stock strategy of flwr.serverapp.strategy

SHARING: dict[str, str] = {
    "all": "every number of the network",
    "all-but-normalisation": "all but the normalisations, which stay at each site",
    "all-but-head": "all but the last layer, which stays at each site",
    "adapters": "the network's adapters and its last layer",
}

OBJECTIVES: dict[str, str] = {
    "plain": "the study's loss",
    "proximal": "the loss, and a pull towards the received model",
    "control-variates": "the loss, with each step corrected for how the site differs",
    "dynamic": "the loss, with a regularisation that cancels the site's own drift",
    "contrastive": "the loss, and features drawn to those of the received model",
    "small-features": "the loss, and small features, with little room for what a scanner adds",
    "aligned-features": "the loss, and features held to the statistics that all sites share",
    "coral": "the loss, and covariances of features held to those of all sites' patients",
    "head-then-body": "the loss, on the last layer first and on the rest after",
    "personal-model": "the loss; beside it a personal model, pulled towards the shared one",
    "mixture": "the loss; beside it a personal model, mixed with the shared one",
    "fine-tune": "the loss; before the final test the site trains on for itself",
    "elastic-weights": "the loss, and a pull to the parent's model where old patients needed it",
    "distillation": "the loss, and answers held to those of the parent's model",
}
# Which of them a study's continual.method chooses, and nothing else.
CONTINUAL_OBJECTIVES: dict[str, str] = {"ewc": "elastic-weights", "lwf": "distillation"}

MEANS = ("weighted-mean", "mean")

AGGREGATION_RULES: dict[str, str] = {
    "weighted-mean": "the mean of the sites' models, weighted by their training examinations",
    "mean": "the mean of the sites' models, each counting the same",
    "normalised-mean": "the mean of the sites' changes, each divided by the steps behind it",
    "fair-mean": "a mean in which a site counts the more, the worse the model does there",
    "in-turn": "no mean: the model visits the sites in turn",
    "coordinate-median": "the median of the sites' models, number by number",
    "trimmed-mean": "the mean of the sites' models, number by number, without the extremes",
    "krum": "the one site's model that is nearest to the others'",
    "multi-krum": "the mean of those sites' models that are nearest to the others'",
    "bulyan": "a trimmed mean of those sites' models that are nearest to the others'",
    "geometric-median": "the model with the least distance to all sites' models",
    "centred-clipping": "the mean of the sites' changes, each clipped around their centre",
    "norm-bounded-mean": "the mean of the sites' changes, each of bounded length",
    "nnm-trimmed-mean": "a trimmed mean, after each model is averaged with its neighbours",
}

_AT_MOST_HALF = (2, 1)  # n > 2 f
_ROBUST: dict[str, tuple[int, int]] = {
    "coordinate-median": _AT_MOST_HALF,
    "trimmed-mean": _AT_MOST_HALF,
    "krum": (2, 3),
    "multi-krum": (2, 3),
    "bulyan": (4, 3),
    "geometric-median": _AT_MOST_HALF,
    "centred-clipping": _AT_MOST_HALF,
    "norm-bounded-mean": _AT_MOST_HALF,
    "nnm-trimmed-mean": _AT_MOST_HALF,
}
ROBUST = tuple(_ROBUST)
# How many updates a rule needs in a round to withstand ``f`` hostile ones: factor and extra of
# ``factor * f + extra``. Those absent need one.
FEWEST_SITES: dict[str, tuple[int, int]] = {**_ROBUST, "flower:Bulyan": (4, 3)}

# The server's steps, each with its learning rate where the study gives none.
SERVER_OPTIMISERS: dict[str, float] = {
    "replace": 1.0,
    "sgd": 1.0,
    "momentum": 1.0,
    "adam": 0.01,
    "yogi": 0.01,
    "adagrad": 0.01,
    "dynamic": 1.0,
}

# What leaves a site with numbers of its own.
_KEEPING = ("all-but-normalisation", "all-but-head")
# Objectives whose sites evaluate a model that no other site has.
_PERSONAL_MODELS = ("personal-model", "mixture")
# Objectives for which a site remembers something from round to round.
_STATEFUL = ("control-variates", "dynamic", "contrastive", *_PERSONAL_MODELS)


@dataclass(frozen=True, slots=True)
class Preset:
    """A published strategy as four choices.

    Attributes:
        paper: Where it is described.
    """

    paper: str
    share: str = "all"
    objective: str = "plain"
    aggregation: str = "weighted-mean"
    server_optimiser: str = "replace"


PRESETS: dict[str, Preset] = {
    "fedavg": Preset("McMahan et al. 2017, algorithm 1"),
    "fedprox": Preset("Li et al. 2020 (MLSys), equation 2", objective="proximal"),
    "fedavgm": Preset("Hsu et al. 2019, section 4.3", server_optimiser="momentum"),
    "fedadam": Preset("Reddi et al. 2021, algorithm 2", server_optimiser="adam"),
    "fedyogi": Preset("Reddi et al. 2021, algorithm 2", server_optimiser="yogi"),
    "fedadagrad": Preset("Reddi et al. 2021, algorithm 2", server_optimiser="adagrad"),
    "fednova": Preset("Wang et al. 2020, equation 9", aggregation="normalised-mean"),
    "scaffold": Preset(
        "Karimireddy et al. 2020, algorithm 1, option II", objective="control-variates"
    ),
    "feddyn": Preset(
        "Acar et al. 2021, algorithm 1", objective="dynamic", server_optimiser="dynamic"
    ),
    "moon": Preset("Li et al. 2021 (CVPR), equation 5", objective="contrastive"),
    "fedbn": Preset("Li et al. 2021 (ICLR), algorithm 1", share="all-but-normalisation"),
    "fedper": Preset("Arivazhagan et al. 2019, algorithms 1 and 2", share="all-but-head"),
    "fedrep": Preset(
        "Collins et al. 2021, algorithm 1", share="all-but-head", objective="head-then-body"
    ),
    "ditto": Preset("Li et al. 2021 (ICML), algorithm 1", objective="personal-model"),
    "apfl": Preset("Deng et al. 2020, algorithm 1", objective="mixture"),
    "qfedavg": Preset("Li et al. 2020 (ICLR), algorithm 2", aggregation="fair-mean"),
    "cyclic": Preset("Chang et al. 2018, cyclical weight transfer", aggregation="in-turn"),
    "fedavg-finetune": Preset("Wang et al. 2019, section 3", objective="fine-tune"),
    "coordinate-median": Preset("Yin et al. 2018, option I", aggregation="coordinate-median"),
    "trimmed-mean": Preset("Yin et al. 2018, option II", aggregation="trimmed-mean"),
    "krum": Preset("Blanchard et al. 2017, section 4", aggregation="krum"),
    "multi-krum": Preset("Blanchard et al. 2017, section 4", aggregation="multi-krum"),
    "bulyan": Preset("El Mhamdi et al. 2018, algorithm 2", aggregation="bulyan"),
    "geometric-median": Preset("Pillutla et al. 2022, algorithm 2", aggregation="geometric-median"),
    "centred-clipping": Preset("Karimireddy et al. 2021", aggregation="centred-clipping"),
    "norm-bounded-mean": Preset("Sun et al. 2019, section 4", aggregation="norm-bounded-mean"),
    "nnm-trimmed-mean": Preset("Allouah et al. 2023", aggregation="nnm-trimmed-mean"),
}


@dataclass(frozen=True, slots=True)
class StrategyPlan:
    """The four choices of a study, and their numbers.

    Attributes:
        share: A key of SHARING.
        personal: Patterns of further parameters that stay at the site.
        objective: A key of OBJECTIVES.
        aggregation: A key of AGGREGATION_RULES, ``flower:`` and the name of a stock strategy, or
            ``package:name``.
        server_optimiser: A key of SERVER_OPTIMISERS.
    """

    share: str
    personal: tuple[str, ...]
    objective: str
    aggregation: str
    server_optimiser: str
    options: StrategyOptions

    @property
    def personalised(self) -> bool:
        """Whether each site ends with a model of its own."""
        own = self.share in _KEEPING or bool(self.personal)
        return own or self.objective in (*_PERSONAL_MODELS, "fine-tune")

    @property
    def keeps_state(self) -> bool:
        """Whether a site keeps something from round to round."""
        own = self.share in _KEEPING or bool(self.personal)
        return own or self.objective in _STATEFUL

    @property
    def server_learning_rate(self) -> float:
        """The study's, or else the server optimiser's own."""
        chosen = self.options.server_learning_rate
        return SERVER_OPTIMISERS[self.server_optimiser] if chosen is None else chosen


def plan_of(study: Study) -> StrategyPlan:
    """Return the four choices of a checked study."""
    plan = plan_from(study.federation, adapted=study.model.adapted)
    held = CONTINUAL_OBJECTIVES.get(study.continual.method) if study.continual else None
    return plan if held is None else replace(plan, objective=held)


def plan_from(federation: FederationSection, adapted: bool = False) -> StrategyPlan:
    """Return the four choices of a section: its strategy's row, with what it overrides.

    Args:
        adapted: Whether the network has adapters, or numbers that are frozen by pattern: a strategy
            that shares all then shares only what is trained, unless the study itself says "all".

    Raises:
        KeyError: The strategy is unknown.
    """
    name = federation.strategy
    is_other = name.startswith(FLOWER) or reference_of(name) is not None
    row = Preset("", aggregation=name) if is_other else PRESETS[name]
    share = "adapters" if adapted and row.share == "all" else row.share
    return StrategyPlan(
        share=federation.share or share,
        personal=federation.personal,
        objective=federation.objective or row.objective,
        aggregation=federation.aggregation or row.aggregation,
        server_optimiser=federation.server_optimiser or row.server_optimiser,
        options=federation.options,
    )


def fewest_sites(plan: StrategyPlan) -> int:
    """Return how many updates a round needs, for the hostile sites that are assumed."""
    factor, extra = FEWEST_SITES.get(plan.aggregation, (0, 1))
    return factor * plan.options.assumed_hostile + extra


def describe_aggregation(plan: StrategyPlan) -> str:
    """Return in words how the server combines, for a hospital to read."""
    if plan.aggregation.startswith(FLOWER):
        return f"Flower's strategy {plan.aggregation.removeprefix(FLOWER)}"
    if (named := reference_of(plan.aggregation)) is not None:
        return f"{named.name}, of the package {named.package}, which runs at the server alone"
    return AGGREGATION_RULES[plan.aggregation]
