"""A strategy from the study's four choices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from wardround.common.files.packages.references import reference_of
from wardround.common.messages.replies import SiteUpdate
from wardround.common.models.sharing import Layout, auxiliary_schema
from wardround.common.parameters.schema import Model, Parameters, check_schema, under
from wardround.common.study.plans.site_privacy import SitePrivacyPlan, plan_site_privacy
from wardround.common.study.plans.strategy import FLOWER, StrategyPlan, plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.sections.training import TrainingSection
from wardround.common.study.study import Study
from wardround.server.strategies.aggregation.base import Aggregation
from wardround.server.strategies.aggregation.means import FairMean, InTurn, Mean, NormalisedMean
from wardround.server.strategies.aggregation.registry import AggregationOptions, make_aggregation
from wardround.server.strategies.control_variates import ControlVariates
from wardround.server.strategies.private_mean import PrivateMean
from wardround.server.strategies.server_optimiser import make_server_step
from wardround.server.strategies.strategy import Site, Strategy

_STEP, _CONTROL, _PRIVACY = "step/", "control/", "privacy/"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a strategy is told of its study.

    Attributes:
        population: The sum of all sites' weights.
        sites: How many they are.
        privacy: Of whole sites, if they have it; each then counts the same.
        packages: The study's, where it names the rule of one.
    """

    plan: StrategyPlan
    training: TrainingSection
    layout: Layout
    population: int
    sites: int = 1
    privacy: SitePrivacyPlan | None = None
    packages: Mapping[str, str] = field(default_factory=dict)


class ComposedStrategy:
    """A combination, a server step, and SCAFFOLD's control variate where the objective needs it."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._plan = setting.plan
        self._trainable = setting.layout.trainable
        self._step = make_server_step(setting.plan, self._trainable)
        wanted = setting.plan.objective == "control-variates"
        self._control = ControlVariates(self._trainable) if wanted else None
        self._private = (
            PrivateMean(setting.privacy, setting.sites, self._trainable)
            if setting.privacy
            else None
        )
        self._start: Model = {}
        self._latest: Model = {}
        self._weight = 0

    def cohorts(self, sites: Sequence[Site]) -> Sequence[Sequence[Site]]:
        """Return all sites at once, or one after the other where the model visits them in turn."""
        return [[site] for site in sites] if self._in_turn else [sites]

    def begin(self, number: int, parameters: Model) -> None:
        """Forget the updates of a round that did not end."""
        self._start = self._latest = parameters
        self._weight = 0
        self._auxiliary = auxiliary_schema(self._plan, self._setting.layout, parameters)
        if self._private is not None:
            self._private.begin(parameters)
        self._aggregation = self._private or _aggregation(self._setting, parameters)
        if self._control is not None:
            self._control.begin(parameters)

    def model(self) -> Model:
        """Return the round's model; where it visits the sites in turn, the last one's."""
        return self._latest

    def auxiliary(self) -> Parameters:
        """Return the shared control variate, if there is one."""
        return {} if self._control is None else self._control.auxiliary()

    def accumulate(self, update: SiteUpdate) -> None:
        """Take one site's update in."""
        check_schema(update.auxiliary, self._auxiliary)
        weight = site_weight(update.examinations, self._plan) * update.sites
        self._aggregation.accumulate(update)
        if self._control is not None:
            self._control.accumulate(update, weight / self._setting.population)
        self._weight += weight
        if self._in_turn:
            self._latest = update.parameters

    def finish(self) -> Parameters:
        """Return the next model."""
        combined = self._aggregation.finish()
        if self._control is not None:
            self._control.finish()
        answered = min(1.0, self._weight / self._setting.population)
        following = self._step.apply(self._start, combined, answered)
        self._start = self._latest = {}
        return following

    def state(self) -> Parameters:
        """Return what the server optimiser and the control variate remember."""
        control = {} if self._control is None else self._control.state()
        private = {} if self._private is None else self._private.state()
        return {
            **{_STEP + name: tensor for name, tensor in self._step.state().items()},
            **{_CONTROL + name: tensor for name, tensor in control.items()},
            **{_PRIVACY + name: tensor for name, tensor in private.items()},
        }

    def restore(self, state: Parameters) -> None:
        """Go on from a state."""
        self._step.restore(under(_STEP, state))
        if self._control is not None:
            self._control.restore(under(_CONTROL, state))
        if self._private is not None:
            self._private.restore(under(_PRIVACY, state))

    @property
    def _in_turn(self) -> bool:
        return self._plan.aggregation == "in-turn"


def make_strategy(study: Study, layout: Layout, examinations: Sequence[int]) -> Strategy:
    """Return the server's half of the study's strategy.

    Args:
        layout: Of the study's network.
        examinations: How many training examinations each site has.
    """
    plan = plan_of(study)
    federation = study.federation
    if federation.secure_aggregation and federation.masks.groups == 1:
        # What comes is combined: the mean of one is itself.
        plan = replace(plan, aggregation="mean")
    if plan.aggregation.startswith(FLOWER):
        from wardround.server.strategies.flower_strategy import StockStrategy

        return StockStrategy(plan, layout.trainable, len(examinations))
    population = max(1, sum(site_weight(count, plan) for count in examinations))
    noised_here = what_leaves(study).noise_added_by == "server"
    private = plan_site_privacy(study) if noised_here else None
    sites = len(examinations)
    return ComposedStrategy(
        Setting(plan, study.training, layout, population, sites, private, study.packages)
    )


def site_weight(examinations: int, plan: StrategyPlan) -> int:
    """Return a site's weight: its training examinations, or 1 where all count the same."""
    return 1 if plan.aggregation == "mean" else examinations


def needs_same_sites(study: Study) -> bool:
    """Return whether a study's strategy reckons with the number, or the weight, of all sites.

    A site that comes later would then count for more, or be promised less, than was reckoned.
    """
    plan = plan_of(study)
    return (
        plan.aggregation.startswith(FLOWER)
        or plan.objective == "control-variates"
        or plan.server_optimiser == "dynamic"
        or what_leaves(study).noise_added_by == "server"
    )


def _aggregation(setting: Setting, model: Model) -> Aggregation:
    plan, trainable = setting.plan, setting.layout.trainable
    own: dict[str, Callable[[], Aggregation]] = {
        "mean": Mean,
        "normalised-mean": partial(NormalisedMean, model, trainable, setting.training),
        "fair-mean": partial(
            FairMean, model, trainable, setting.training.learning_rate, plan.options.fairness
        ),
        "in-turn": InTurn,
    }
    if plan.aggregation in own:
        return own[plan.aggregation]()
    if reference_of(plan.aggregation) is not None:
        from wardround.server.strategies.aggregation.registered import registered_rule

        return registered_rule(plan.aggregation, setting.packages, model)
    options = AggregationOptions(
        assumed_hostile=plan.options.assumed_hostile,
        norm_bound=plan.options.norm_bound,
        weight_cap=plan.options.weight_cap,
    )
    return make_aggregation(plan.aggregation, options, model)
