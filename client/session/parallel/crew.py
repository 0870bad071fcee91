"""The first process's end of a local step over several devices: it starts the others, and leads.

It holds the patients, the model, the loss, the noise and the optimiser. The others get their rows
and the model's numbers in each step. So what a study says of a step holds as on one device.
"""

import logging
import os
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_unflatten

from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.session.parallel.exchange import Exchange, Form
from wardround.client.session.parallel.orders import (
    Begin,
    ClipEnd,
    ClipPatients,
    ClipStep,
    Differentiate,
    Failed,
    Forward,
    Order,
    Seed,
)
from wardround.client.session.parallel.shares import NetworkShare, share_sizes, shared_numbers
from wardround.client.site.device import choose_device
from wardround.common.errors import RunError
from wardround.common.models.sharing import trained_parameters
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.seeds import derive_seed
from wardround.common.runtime.system.processes import start_with_files
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
_MODULE = "wardround.client.session.parallel.helper_main"
_ENDING_SECONDS = 2.0
_START_SECONDS = 300.0  # torch and MONAI from a cold disk
_LAST_WORDS_SECONDS = 2.0


class Crew:
    """The processes of one site's local step; one that fails ends them all.

    Args:
        network: The first process's, on the first device, in training mode.
        devices: Their names, at least two.
        annotated: The classes that the site has annotated, as its loss is built with.

    Raises:
        RunError: One cannot be started.
    """

    def __init__(
        self,
        study: Study,
        network: nn.Module,
        devices: tuple[str, ...],
        annotated: tuple[int, ...] | None = None,
    ) -> None:
        self.devices, self.size = devices, len(devices)
        self._network = network
        self._folder = tempfile.TemporaryDirectory(prefix="wardround-step-")  # of this account
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[Connection] = []
        self._ending = weakref.finalize(self, _end, self._processes, self._channels, self._folder)
        store = Path(self._folder.name) / "meeting"
        threads = max(1, torch.get_num_threads() // self.size)
        with self._ends_all():
            for rank in range(1, self.size):
                self._start()
                begin = Begin(
                    study.to_json(), devices[rank], rank, self.size, str(store), threads, annotated
                )
                self._tell(rank, begin)
            self._exchange = Exchange(0, self.size, store, choose_device(devices[0]))
            for rank in range(1, self.size):
                self._hear(rank, _START_SECONDS)
        self._share = NetworkShare(network, self._exchange)
        # Has a gradient, so that what the network returns is part of the graph.
        self._anchor = torch.zeros((), requires_grad=True)
        self._form: TreeSpec | None = None
        self._rows: list[int] = []
        logger.info("local step over %d processes: %s", self.size, ", ".join(devices))

    @property
    def is_alive(self) -> bool:
        """Whether all processes run."""
        return self._ending.alive and all(one.poll() is None for one in self._processes)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the further processes."""
        return tuple(one.pid for one in self._processes)

    def close(self) -> None:
        """End the further processes."""
        self._ending()

    def seed(self, seed: int) -> None:
        """Have each further process draw its dropout from a seed of its own."""
        with self._ends_all():
            for rank in range(1, self.size):
                self._tell(rank, Seed(derive_seed(seed, rank)))

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the network returns for all rows; its gradient is found by all processes."""
        found = _Together.apply(self._anchor, self, *inputs)  # type: ignore[no-untyped-call] # torch's own
        if self._form is None:
            msg = "the network was not run"
            raise TypeError(msg)
        return tree_unflatten(list(found), self._form)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the network on all rows, ``(B, ...)``; return what it returns, flat."""
        with self._ends_all():
            return self._forward(inputs)

    def differentiate(self, along: tuple[Tensor, ...]) -> None:
        """Add the gradients of a loss to the parameters' own.

        Args:
            along: The loss's gradient of each thing that :meth:`forward` returned.
        """
        with self._ends_all():
            parts = [torch.split(part.contiguous(), self._rows) for part in along]
            for rank in range(1, self.size):
                self._tell(rank, Differentiate())
                if self._rows[rank]:
                    self._exchange.send([part[rank] for part in parts], rank)
            found = self._share.gradients([part[0] for part in parts])
        for weight, part in zip(trained_parameters(self._network).values(), found, strict=True):
            if part is not None:
                weight.grad = part if weight.grad is None else weight.grad.add_(part)

    def clipped_total(
        self,
        batches: Iterable[PatientBatch],
        per_sample_loss: PerSampleLoss,
        clip_norm: float,
        method: str,
        microbatch: int,
    ) -> Parameters:
        """Return the sum of all patients' clipped gradients; each process clips its own.

        Args:
            batches: Whole patients; each batch is divided among the processes.
            method: A name of ``client.privacy.gradients``.
            microbatch: Examples in a process's memory at once.
        """
        weights = trained_parameters(self._network)
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        with self._ends_all():
            for rank in range(1, self.size):
                self._tell(rank, ClipStep(method, clip_norm, microbatch))
            self._exchange.share(shared_numbers(self._network))
            for batch in batches:
                own, *others = divided(batch, self.size)
                for rank, patients in enumerate(others, 1):
                    self._hand_over(patients, rank)
                found = clipped_gradient_sum(
                    self._network, own, per_sample_loss, clip_norm, method, microbatch
                )
                for name, value in found.items():
                    total[name].add_(value)
            for rank in range(1, self.size):
                self._tell(rank, ClipEnd())
            self._exchange.add_up(list(total.values()))
        return total

    def _forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._rows = share_sizes(len(inputs[0]), self.size)
        parts = [torch.split(part, self._rows) for part in inputs]
        # Who has no row runs one that another has: all take part in each sum.
        rows = [
            [part[rank] if self._rows[rank] else part[0][:1] for part in parts]
            for rank in range(self.size)
        ]
        for rank in range(1, self.size):
            forms = tuple(Form.of(part) for part in rows[rank])
            self._tell(rank, Forward(forms, self._rows[rank] > 0))
        self._exchange.share(shared_numbers(self._network))
        for rank in range(1, self.size):
            self._exchange.send(rows[rank], rank)
        self._form = self._share.forward(rows[0])
        found = [[output] for output in self._share.outputs]
        for rank in range(1, self.size):
            if self._rows[rank]:
                forms = tuple(
                    Form((self._rows[rank], *parts[0].shape[1:]), parts[0].dtype) for parts in found
                )
                for held, part in zip(found, self._exchange.receive(forms, rank), strict=True):
                    held.append(part)
        return tuple(torch.cat(held) for held in found)

    def _hand_over(self, patients: PatientBatch, rank: int) -> None:
        if not patients.patients:
            return
        examples = patients.examples
        parts = (examples.images, examples.covariates, examples.targets)
        images, covariates = (None if part is None else Form.of(part) for part in parts[:2])
        forms = (images, covariates, Form.of(examples.targets))
        self._tell(rank, ClipPatients(forms, patients.counts))
        self._exchange.send([part for part in parts if part is not None], rank)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-m", _MODULE, str(descriptor), str(os.getpid())]
            self._processes.append(start_with_files(command, (descriptor,)))
        self._channels.append(Connection(ours.detach()))

    def _tell(self, rank: int, order: Order) -> None:
        self._channels[rank - 1].send(order)

    def _hear(self, rank: int, seconds: float) -> None:
        channel = self._channels[rank - 1]
        said = channel.recv() if channel.poll(seconds) else Failed("it did not start in time")
        if isinstance(said, Failed):
            raise _FailedError(rank, said.reason)

    @contextmanager
    def _ends_all(self) -> Iterator[None]:
        """End all processes where one fails, or anything else does: a sum would wait for ever.

        Raises:
            RunError: One failed; says which and, where it could say so, why.
        """
        try:
            yield
        except (_FailedError, RuntimeError, OSError, EOFError) as error:
            reason = self._reason(error)
            self.close()
            if reason is None:
                raise
            raise RunError(reason) from error
        except BaseException:
            self.close()
            raise

    def _reason(self, error: Exception) -> str | None:
        """Return which process failed, and why; None where it was none of the further ones."""
        found = [(error.rank, error.reason)] if isinstance(error, _FailedError) else []
        for rank, (process, channel) in enumerate(
            zip(self._processes, self._channels, strict=True), 1
        ):
            said = _last_words(channel)
            if said is not None:
                found.append((rank, said))
                continue
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_LAST_WORDS_SECONDS / self.size)
                found.append((rank, f"signal {-code}" if code < 0 else f"exit code {code}"))
        if not found:
            return None
        rank, why = found[0]
        return (
            f"the training process {rank + 1} of {self.size}, on {self.devices[rank]}, ended in "
            f"the middle of a step ({why}): this round is over, and its processes are ended. Look "
            "at that device, or take it out of devices in site.toml."
        )


class _FailedError(Exception):
    """A further process said that it cannot go on."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(reason)
        self.rank, self.reason = rank, reason


class _Together(torch.autograd.Function):
    """The network as all processes run it; its backward pass has all of them differentiate."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, crew: Crew, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.crew = crew
        return crew.forward(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.crew.differentiate(gradients)
        return (None,) * (2 + len(ctx.needs_input_grad[2:]))


def divided(batch: PatientBatch, size: int) -> list[PatientBatch]:
    """Return a batch's patients in ``size`` runs of about as many examples; some may be empty."""
    found: list[PatientBatch] = []
    most, first, held = len(batch.examples) / size, 0, 0
    for patient, count in enumerate(batch.counts):
        if held and held + count / 2 > most * (len(found) + 1) and len(found) < size - 1:
            found.append(batch.slice(first, patient))
            first = patient
        held += count
    found.append(batch.slice(first, batch.patients))
    return found + [batch.slice(0, 0)] * (size - len(found))


def _last_words(channel: Connection) -> str | None:
    with suppress(OSError, EOFError):
        while channel.poll(0):
            said = channel.recv()
            if isinstance(said, Failed):
                return said.reason
    return None


def _end(
    processes: list["subprocess.Popen[bytes]"],
    channels: list[Connection],
    folder: "tempfile.TemporaryDirectory[str]",
) -> None:
    for channel in channels:
        channel.close()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_SECONDS / len(processes))
        process.kill()
        process.wait()
    folder.cleanup()
