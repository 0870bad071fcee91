"""What a study whose noise lies in the sum of all sites may ask for."""

from collections.abc import Iterator

from wardround.common.study.plans.strategy import MEANS, StrategyPlan, plan_from
from wardround.common.study.study import Study

_ASKED = "privacy.noise = 'distributed'"


def distributed_noise_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, reason, remedy) for every rule of distributed noise that is broken.

    Whether the promise can be kept is not among them: :func:`noise_fits` says so.
    """
    privacy = study.privacy
    if privacy.noise == "local":
        if privacy.colluding_sites is not None:
            yield (
                f"privacy.colluding_sites = {privacy.colluding_sites} has no effect with "
                f"privacy.noise = 'local': set {_ASKED}, or remove it."
            )
        return
    if privacy.mode == "none":
        return  # said where keys have no reader
    if not study.federation.secure_aggregation:
        yield (
            f"{_ASKED} adds to each update a part of the noise only, and the server must not see "
            "one alone: set federation.secure_aggregation = true."
        )
        return
    yield from _colluders_fit(study)
    yield from _words_fit(study)
    try:
        plan = plan_from(study.federation, adapted=study.model.adapted)
    except KeyError:
        return  # an unknown strategy, said elsewhere
    if privacy.mode == "patient":
        yield from _is_one_step(study)
        yield from _is_one_sum(study, plan)
    else:
        yield from _clips_once(study)
        yield from _is_one_change(plan)


def _colluders_fit(study: Study) -> Iterator[str]:
    from wardround.common.privacy.secure_aggregation.context import least_threshold
    from wardround.common.study.plans.distributed_noise import fewest_sites

    sites, asked = fewest_sites(study), study.privacy.colluding_sites
    most = sites - least_threshold(sites)
    if asked is not None and asked > most:
        yield (
            f"privacy.colluding_sites = {asked} of {sites} sites is a third or more, against whom "
            f"the masks themselves do not hold: allow at most {most}, or raise "
            "federation.minimum_sites."
        )
    if sites > study.federation.masks.most_sites:
        yield (
            f"federation.minimum_sites = {sites} is more than federation.masks.most_sites = "
            f"{study.federation.masks.most_sites}: raise the latter."
        )


def _words_fit(study: Study) -> Iterator[str]:
    masks = study.federation.masks
    if masks.word_bits != 64:
        yield (
            f"federation.masks.word_bits = {masks.word_bits} is too narrow for numbers and the "
            f"noise of {_ASKED}: take 64."
        )
    if masks.clip_norm is not None:
        yield (
            f"federation.masks.clip_norm = {masks.clip_norm:g} would shorten what "
            f"privacy.clip_norm has bounded, and {_ASKED} is reckoned for that: remove it."
        )


def _is_one_change(plan: StrategyPlan) -> Iterator[str]:
    if plan.objective == "control-variates" or plan.aggregation not in MEANS:
        yield (
            f"the strategy's objective {plan.objective!r} with aggregation {plan.aggregation!r} "
            f"adds more up than the clipped changes of the sites, and {_ASKED} puts noise on "
            "these alone: choose fedavg, fedprox, fedavgm, fedadam, fedyogi or fedadagrad."
        )


def _is_one_step(study: Study) -> Iterator[str]:
    from wardround.common.study.plans.patient_privacy import steps_of

    steps, training = steps_of(study), study.training
    if steps != 1:
        yield (
            f"{_ASKED} with privacy.mode = 'patient' needs one step a round, and this study has "
            f"{steps}: after the first step each further gradient depends on all patients of the "
            "steps before, so that one patient's effect on the update is not bounded by "
            "privacy.clip_norm. Set training.local_steps = 1, or privacy.mode = 'site'."
        )
    if training.optimiser != "sgd":
        yield (
            f"training.optimiser = {training.optimiser!r} divides by the gradient's size before "
            f"the noise is whole, and {_ASKED} bounds a plain sum of gradients: set it to 'sgd'. "
            "The server may use any step, e.g. federation.strategy = 'fedadam'."
        )
    for key in ("momentum", "weight_decay"):
        value = getattr(training, key)
        if value:
            yield (
                f"training.{key} = {value:g} has no effect where a site sends one gradient: remove "
                "it. The server's momentum is federation.server_optimiser = 'momentum'."
            )
    if training.ema is not None:
        yield (
            f"training.ema = {training.ema:g} is a mean over the steps of a round, and there is "
            "one: remove it, or use federation.ema."
        )


def _is_one_sum(study: Study, plan: StrategyPlan) -> Iterator[str]:
    if plan.objective not in ("plain", "proximal") or plan.aggregation not in MEANS:
        yield (
            f"the strategy's objective {plan.objective!r} with aggregation {plan.aggregation!r} "
            f"is no sum of the patients' gradients, which {_ASKED} adds its noise to: choose "
            "fedavg, fedavgm, fedadam, fedyogi or fedadagrad."
        )
    if plan.share not in ("all", "adapters") or plan.personal:
        yield (
            "parts of the network that stay at a site would be trained without noise, of which "
            f"{_ASKED} has none there: set federation.share = 'all', and no federation.personal."
        )


def _clips_once(study: Study) -> Iterator[str]:
    if study.privacy.adaptive_clipping:
        yield (
            "privacy.adaptive_clipping = true needs to know whose update is how long, and "
            f"{_ASKED} hides them in a sum: remove it."
        )


def noise_fits(study: Study) -> Iterator[str]:
    """Yield a sentence if the noise of a study that breaks no other rule is no noise on the grid.

    Raises:
        InputError: dp-accounting is not installed, or the promise cannot be planned.
    """
    if study.privacy.noise != "distributed":
        return
    from wardround.common.study.plans.distributed_noise import plan_shares

    shares = plan_shares(study)
    if shares is not None and not shares.is_fine:
        yield (
            f"a noise multiplier of {shares.noise_multiplier:g} is so large that a patient is lost "
            f"in the rounding of the masked numbers, and {_ASKED} is not reckoned for that: lower "
            "privacy.noise_multiplier, or allow a larger epsilon."
        )
