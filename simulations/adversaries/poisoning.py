"""A site that trains on poisoned data: the site's own app, with its training patients swapped."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from torch import Generator, Tensor

from wardround.client import app as site_app
from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.common.errors import WardroundError
from wardround.common.messages.instructions import TRAIN
from wardround.common.runtime.seeds import generator_for
from wardround.simulations.adversaries.manipulations import (
    FLIPPED_LABELS,
    flip_targets,
    put_trigger,
    triggered_examples,
)
from wardround.simulations.adversaries.roles import Role

_KEY = "adversary"
_CPU = torch.device("cpu")


class PoisonedCohort(Cohort):
    """A cohort whose batches are poisoned; what it has loaded is the honest cohort's."""

    def __init__(self, honest: Cohort, role: Role, site: str, classes: int) -> None:
        # The images are shared, not read again; the honest cohort is left as it is.
        self.__dict__.update(vars(honest))
        self._role = role
        self._classes = classes
        drawing = generator_for("trigger", role.seed, site)
        self._is_triggered = triggered_examples(len(honest), drawing)

    def batch(
        self,
        indices: Tensor,
        generator: Generator | None = None,
        device: torch.device = _CPU,
    ) -> Batch:
        """Return a batch as the adversary wants the network to see it.

        Args:
            indices: ``(B,)`` int64.
            generator: Draws the augmentation; None for none.
            device: Where the batch shall be.
        """
        batch = super().batch(indices, generator, device)
        if self._role.kind in FLIPPED_LABELS:
            return replace(batch, targets=flip_targets(batch.targets, self._classes))
        if self._role.kind == "backdoor" and batch.images is not None:
            return self._triggered(batch, indices)
        return batch

    def _triggered(self, batch: Batch, indices: Tensor) -> Batch:
        if batch.images is None:
            return batch
        chosen = self._is_triggered[indices].to(batch.targets.device)
        images, targets = batch.images.clone(), batch.targets.clone()
        images[chosen] = put_trigger(images[chosen])
        targets[chosen] = self._role.target
        return Batch(images, batch.covariates, targets)


class _PoisonableApp(ClientApp):
    """Is made anew in a process that was not forked: Flower's chain of mods cannot be pickled."""

    def __reduce__(self) -> tuple[Callable[[], ClientApp], tuple[()]]:
        return poisonable_app, ()


def poisonable_app() -> ClientApp:
    """Return the site's app with one step before it: a hostile site's patients are swapped."""
    app = _PoisonableApp(mods=[_poison])
    app.query("describe")(site_app.describe)
    app.train()(site_app.train)
    app.evaluate()(site_app.evaluate)
    return app


def give_role(context: Context, role: Role) -> None:
    """Tell a simulated site what it plays."""
    context.node_config[_KEY] = json.dumps(asdict(role))


def _poison(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let a hostile site train on poisoned patients; it evaluates on the true ones."""
    text = context.node_config.get(_KEY)
    if text is None or message.metadata.message_type != TRAIN:
        return call_next(message, context)
    try:
        session = site_app.open_session(context)
    except WardroundError:
        return call_next(message, context)  # which meets it again, and answers it
    honest = session.cohorts
    role, classes = Role(**json.loads(str(text))), session.context.study.class_count
    poisoned = PoisonedCohort(honest.train, role, session.site.name, classes)
    session.cohorts = replace(honest, train=poisoned)
    try:
        return call_next(message, context)
    finally:
        session.cohorts = honest  # a baseline in this process uses the same session
