"""What all sites of one process share: a network of the study, on a device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from wardround.client.data.cohort import Cohort
from wardround.client.privacy.gradients.choice import exact_method
from wardround.client.privacy.step import StepComputation, mean_gradient, train_privately
from wardround.client.site.device import arranged_for, choose_arithmetic, device_for
from wardround.client.site.state import SiteState
from wardround.client.training.local import LocalWork
from wardround.client.training.objectives.base import LocalStart, Objective
from wardround.client.training.objectives.registry import personal_model
from wardround.common.models.lora import fingerprint
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import lacks_weights, load_pretrained
from wardround.common.models.sharing import Layout, layout_of
from wardround.common.parameters.schema import Parameters, read_parameters, under
from wardround.common.runtime.system.memory import keep_freed_memory
from wardround.common.study.plans.packs import names_pack
from wardround.common.study.plans.patient_privacy import PrivacyPlan, plan_privacy
from wardround.common.study.plans.strategy import StrategyPlan, plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.session.parallel.crew import Crew

PERSONAL = "personal/"  # before the name of a parameter that a site keeps for itself


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ModelContext:
    """What all sites of one process share: a network of the study, on a device.

    Attributes:
        layout: What of the network is shared.
        initial: The untrained numbers of what is not.
        base: The numbers that never change, beneath adapters.
        fingerprint: Tells that base from another.
        privacy: What is promised to each patient; None where nothing is.
        keeps_state: Whether a site keeps something from round to round.
    """

    study: Study
    device: torch.device
    network: nn.Module
    plan: StrategyPlan
    layout: Layout
    initial: Parameters
    base: Parameters
    fingerprint: float
    privacy: PrivacyPlan | None
    keeps_state: bool

    @classmethod
    def build(cls, study: Study, device_name: str) -> "ModelContext":
        """Build the study's network on a device.

        Raises:
            ModelError: The study's pretrained weights are not on this machine.
            InputError: The study is private, and the accountant is not installed.
        """
        keep_freed_memory()
        device, plan = device_for(device_name, study), plan_of(study)
        choose_arithmetic(device, study)
        network = build_network(study, study.federation.seed)
        layout = layout_of(network, plan)
        # Of a model that all is sent of the server has started it: the file need not be here.
        needed = layout.frozen or layout.personal or names_pack(study, "gains")
        # A parent's model is looked at by each site, and may be what its training holds on to.
        needed = needed or (study.continual is not None and study.continual.parent is not None)
        if needed or not lacks_weights(study):
            load_pretrained(network, study)
        network = network.to(device)
        network = arranged_for(network, device, study.training.precision)
        whole = read_parameters(network) if layout.personal or layout.frozen else {}
        initial, base = layout.personal_part(whole), layout.frozen_part(whole)
        by_site = what_leaves(study).noise_added_by == "site" and study.privacy.mode == "patient"
        privacy = plan_privacy(study) if by_site else None
        seal = fingerprint(network)
        keeps = plan.keeps_state or study.federation.compression != "none"
        return cls(study, device, network, plan, layout, initial, base, seal, privacy, keeps)

    def completed(self, received: Parameters, memory: Parameters) -> Parameters:
        """Return a received model with a site's own part, where the strategy gives it one."""
        if not self.layout.personal:
            return self.on_base(received)
        return self.on_base({**self.initial, **under(PERSONAL, memory), **received})

    def on_base(self, parameters: Parameters) -> Parameters:
        """Return parameters with the numbers that never change, where there are some."""
        return {**self.base, **parameters} if self.base else parameters

    def own_model(self, state: SiteState, number: int, received: Parameters) -> Parameters:
        """Return the whole model that a site uses after a round, from what all share."""
        memory = state.after(number) if self.keeps_state else {}
        return personal_model(self.completed(received, memory), memory, self.plan)

    def train_privately(
        self,
        start: LocalStart,
        cohort: Cohort,
        optimiser: torch.optim.Optimizer,
        objective: Objective | None,
        crew: "Crew | None" = None,
    ) -> LocalWork:
        """Train the network on a cohort as the privacy plan says.

        Args:
            crew: The processes among whom the patients of a step are divided.

        Raises:
            TypeError: The study promises its patients nothing.
            RunError: No way of finding a single patient's gradient is exact for the network.
        """
        plan, computation = self._private(crew)
        return train_privately(start, cohort, plan, optimiser, computation, objective)

    def mean_gradient(
        self, start: LocalStart, cohort: Cohort, crew: "Crew | None" = None
    ) -> Parameters:
        """Return a cohort's clipped mean gradient, float64, to which noise is still to be added.

        Args:
            crew: The processes among whom the patients of the step are divided.

        Raises:
            TypeError: The study promises its patients nothing.
            RunError: No way of finding a single patient's gradient is exact for the network.
        """
        return mean_gradient(start, cohort, *self._private(crew))

    def _private(self, crew: "Crew | None") -> tuple[PrivacyPlan, StepComputation]:
        if self.privacy is None:
            msg = "a study without privacy has no plan"
            raise TypeError(msg)
        privacy = self.study.privacy
        method = exact_method(self.study, self.network)
        copies = privacy.augmentation_copies
        return self.privacy, StepComputation(method, privacy.microbatch, copies, crew)
