"""One site's training of its network, and what it needs from one round to the next meanwhile."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.amp import GradScaler

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.data.manifest.label_words import label_words
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import Site
from wardround.client.training.local import LocalWork, loss_scaler, train_locally
from wardround.client.training.objectives.base import LocalStart, Objective
from wardround.client.training.optimisers import build_optimiser
from wardround.common.messages.instructions import Instruction
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.seeds import derive_seed, dropout_seeded

if TYPE_CHECKING:
    from wardround.client.session.parallel.crew import Crew


class Trainer:
    """Trains the network of a context with a site's seeds, on its devices.

    It keeps the scale of the losses of the run at hand, and of a baseline's run the optimiser.
    """

    def __init__(self, context: ModelContext) -> None:
        self._context = context
        self._optimiser_state: dict[str, dict[str, Any]] = {}  # of a baseline, by its run
        self._scalers: dict[str, GradScaler] = {}  # of the losses, by run

    def train(
        self,
        site: Site,
        start: LocalStart,
        batches: Iterator[Batch],
        objective: Objective | None,
        instruction: Instruction,
        standalone: bool,
    ) -> LocalWork:
        """Train the network from where it stands, on a round's batches.

        Args:
            standalone: Whether the site trains without others (a baseline): its optimiser then
                keeps its momentum from round to round.

        Raises:
            OvertimeError: It takes longer than the start's limit.
        """
        device = self._context.device
        key = (self._context.study.federation.seed, site.name, instruction.round)
        optimiser = build_optimiser(start.network, start.training)
        if standalone and instruction.run in self._optimiser_state:
            optimiser.load_state_dict(self._optimiser_state[instruction.run])
        with dropout_seeded(derive_seed(*key, "dropout"), device):
            crew = self.crew(site)
            if crew is not None:
                crew.seed(derive_seed(*key, "dropout"))
            scaler = self.scaler(instruction.run)
            work = train_locally(start, batches, optimiser, objective, scaler, crew)
        if standalone:
            self._optimiser_state = {instruction.run: optimiser.state_dict()}
        return work

    def train_privately(
        self, site: Site, start: LocalStart, cohort: Cohort, objective: Objective | None
    ) -> LocalWork:
        """Train the network as the study's privacy plan says: another draw of the noise."""
        optimiser = build_optimiser(start.network, start.training)
        return self._context.train_privately(start, cohort, optimiser, objective, self.crew(site))

    def mean_gradient(self, site: Site, start: LocalStart, cohort: Cohort) -> Parameters:
        """Return a cohort's clipped mean gradient, float64, to which noise is still to be added."""
        return self._context.mean_gradient(start, cohort, self.crew(site))

    def crew(self, site: Site) -> "Crew | None":
        """Return the processes that train with this one, where the site has several devices."""
        if not site.settings.devices:
            return None
        from wardround.client.session.parallel.hiring import crew_for

        context = self._context
        annotated = label_words(site, context.study).annotated
        devices = site.settings.devices
        return crew_for(context.study, context.network, context.device, devices, annotated)

    def scaler(self, run: str) -> GradScaler:
        """Return the scaler of a run's losses, which knows the scale of its last round."""
        if run not in self._scalers:
            scaler = loss_scaler(self._context.study.training, self._context.device)
            self._scalers = {run: scaler}
        return self._scalers[run]
