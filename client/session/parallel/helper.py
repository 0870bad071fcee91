"""What a further process of a site's local step does with each order."""

from pathlib import Path

import torch
from torch import Tensor

from wardround.client.data.batch import Batch
from wardround.client.privacy.arithmetic import exact_arithmetic
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.session.parallel import orders
from wardround.client.session.parallel.exchange import Exchange, Form
from wardround.client.session.parallel.shares import NetworkShare, shared_numbers
from wardround.client.site.device import arranged_for, choose_arithmetic, choose_device
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.schedule import mixed_precision
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import trained_parameters
from wardround.common.runtime.seeds import seed_dropout
from wardround.common.study.loading import study_from_json


class Helper:
    """What a further process holds: the network, and a step's sums."""

    def __init__(self, begin: orders.Begin) -> None:
        torch.set_num_threads(begin.threads)
        study, self._device = study_from_json(begin.study), choose_device(begin.device)
        choose_arithmetic(self._device, study)
        network = build_network(study, study.federation.seed).to(self._device)
        self._network = arranged_for(network, self._device, study.training.precision).train()
        self._training = study.training
        self._exchange = Exchange(begin.rank, begin.size, Path(begin.store), self._device)
        self._share = NetworkShare(self._network, self._exchange)
        is_private = study.privacy.mode == "patient"
        self._loss = build_loss(study, None, self._device, begin.annotated) if is_private else None
        self._is_present = False
        self._clip: tuple[str, float, int] | None = None
        self._totals: dict[str, Tensor] = {}

    def follow(self, order: orders.Order) -> None:
        """Do what the first process asks for."""
        if isinstance(order, orders.Seed):
            seed_dropout(order.seed, self._device)
        elif isinstance(order, orders.Forward):
            self._forward(order)
        elif isinstance(order, orders.Differentiate):
            self._differentiate()
        elif isinstance(order, orders.ClipStep):
            self._clip = (order.method, order.clip_norm, order.microbatch)
            self._begin_clipping()
        elif isinstance(order, orders.ClipPatients):
            self._add_patients(order)
        else:
            self._exchange.add_up(list(self._totals.values()))

    def _forward(self, order: orders.Forward) -> None:
        self._exchange.share(shared_numbers(self._network))
        inputs = self._exchange.receive(order.inputs, 0)
        with mixed_precision(self._training, self._device):
            self._share.forward(inputs, order.is_present)
        self._is_present = order.is_present
        if order.is_present:
            self._exchange.send(self._share.outputs, 0)

    def _differentiate(self) -> None:
        outputs = self._share.outputs
        if self._is_present:
            along = self._exchange.receive([Form.of(output) for output in outputs], 0)
        else:
            along = [torch.zeros_like(output) for output in outputs]
        self._share.gradients(along)

    def _begin_clipping(self) -> None:
        self._exchange.share(shared_numbers(self._network))
        weights = trained_parameters(self._network)
        self._totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def _add_patients(self, order: orders.ClipPatients) -> None:
        if self._clip is None or self._loss is None:
            msg = "patients came outside a private step"
            raise TypeError(msg)
        forms = [form for form in order.parts if form is not None]
        came = iter(self._exchange.receive(forms, 0))
        images, covariates = (None if form is None else next(came) for form in order.parts[:2])
        patients = PatientBatch(Batch(images, covariates, next(came)), order.counts)
        method, clip_norm, microbatch = self._clip
        with exact_arithmetic():
            found = clipped_gradient_sum(
                self._network, patients, self._loss.per_sample, clip_norm, method, microbatch
            )
        for name, value in found.items():
            self._totals[name].add_(value)
