"""Training at one site alone, for whoever works at that site: nothing leaves this machine.

It is what a simulation's comparison "each site alone" does: the study's network, data, loss,
optimiser and budget, without its strategy, which is about several sites.
"""

from dataclasses import asdict, dataclass
from os import PathLike

from torch import nn

from wardround.client.policy.policy import open_policy
from wardround.client.policy.rules import require_packages
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import InputError, PolicyError
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.metrics.sums import MetricSums, summarise
from wardround.common.metrics.task_sums import MetricValue
from wardround.common.parameters.schema import (
    Parameters,
    check_schema,
    read_parameters,
    schema,
    write_parameters,
)
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.common.study.variants import plain


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """What a training at one site came to.

    Attributes:
        network: The trained network, in evaluation mode, on its device.
        update: By how much each trainable or counted number changed, by the parameter's name, each
            of its own shape: what a round of federated averaging would send.
        class_names: The classes, in the order of the network's logits ``(B, K, ...)``.
        examinations: How many it was trained on.
        steps: Optimiser steps made.
        training_losses: Mean loss of each round's batches.
        values: Every metric of the study's task on the site's validation patients, after the last
            round; empty where there are none.
    """

    network: nn.Module
    update: Parameters
    class_names: tuple[str, ...]
    examinations: int
    steps: int
    training_losses: tuple[float, ...]
    values: tuple[MetricValue, ...]

    @property
    def metrics(self) -> list[dict[str, str | int | float]]:
        """The values as a table: ``pandas.DataFrame(result.metrics)``."""
        return [asdict(value) for value in self.values]


def train_locally(
    study: Study,
    site: "Site | str | PathLike[str]",
    model: nn.Module | None = None,
    *,
    rounds: int | None = None,
    device: str | None = None,
) -> LocalTraining:
    """Train a study's network on one site's patients, and keep everything here.

    The site's policy is about what leaves it, and is asked only which packages' code may run. What
    comes back is made from
    patients without privacy: whoever passes it on does so on their own responsibility.

    Args:
        study: Its strategy is left out; a study with privacy is refused.
        site: A site folder, opened or not.
        model: A network of the study to start from, e.g. of ``load_model``; it is not changed.
            None starts from the study's seed.
        rounds: Of the study's local epochs or steps each; None takes as many as the study has.
        device: "auto", "cpu", "cuda" or "cuda:1"; None takes the site's own.

    Raises:
        DataError: It is no site folder, or its data is not what the study needs.
        ModelError: The model is not one of the study's network.
        PolicyError: The study promises its patients privacy, which is accounted for in federated
            rounds only.
        RunError: The training loss is no longer a number.
    """
    if study.privacy.mode != "none":
        msg = (
            f"study {study.name!r} promises privacy ({study.privacy.mode}), and a training by hand "
            "is charged to no ledger: train wardround.common.without_privacy(study), and keep the "
            "model in the hospital."
        )
        raise PolicyError(msg)
    count = study.federation.rounds if rounds is None else rounds
    if count < 1:
        msg = f"rounds={count} trains nothing: give 1 or more."
        raise InputError(msg)
    opened = site if isinstance(site, Site) else open_site(site)
    if study.packages:  # what leaves is not asked about here; whose code runs is
        require_packages(open_policy(opened.folder), study)
    alone = with_changes(
        plain(study), {"federation.rounds": count, "federation.compression": "none"}
    )
    session = SiteSession(opened, ModelContext.build(alone, device or opened.settings.first_device))
    session.describe(standalone=True)
    return _train(session, model, count)


def _train(session: SiteSession, model: nn.Module | None, rounds: int) -> LocalTraining:
    context = session.context
    parameters = read_parameters(context.network)
    if model is not None:
        given = read_parameters(model)
        check_schema(given, schema(parameters))
        parameters = given
    first, run, losses, steps = parameters, new_run(), list[float](), 0
    for number in range(1, rounds + 1):
        instruction = Instruction(context.study.digest, run, number, parameters, validate=False)
        work = session.train(instruction, standalone=True)
        parameters = {**parameters, **work.parameters}
        losses.append(work.training_loss)
        steps += work.updates
    final = Instruction(context.study.digest, run, rounds, parameters)
    measured = session.evaluate(final).metrics
    write_parameters(context.network, context.on_base(parameters))
    changed = {name: parameters[name] - first[name] for name in context.layout.shared}
    return LocalTraining(
        network=context.network.eval(),
        update=changed,
        class_names=context.study.data.classes,
        examinations=len(session.cohorts.train),
        steps=steps,
        training_losses=tuple(losses),
        values=summarise(measured, context.study) if isinstance(measured, MetricSums) else (),
    )
