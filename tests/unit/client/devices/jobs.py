"""What a site does, done on the stand-in device; prints as JSON what went to and fro.

python -m tests.unit.client.devices.jobs FOLDER
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.unit.client.devices.names import EVALUATED, METHODS, TRAINED
from tests.unit.client.devices.stand_in import DEVICE, Traffic, generator, present, recorded

# isort: split
import torch
from torch import Tensor, nn

from wardround.client.data.augmentation import applied, rare_changes
from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.step import noised_mean
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.device import arranged_for
from wardround.client.site.folder import open_site
from wardround.client.tasks import windows
from wardround.client.training.evaluation import evaluate
from wardround.client.training.losses.registry import build_loss
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.study import Study

FEW, MANY = 2, 6  # steps, or batches, whose difference is what one more costs
_RUN = new_run()
_CPU = torch.device("cpu")


def study_of(task: str, size: tuple[int, ...], **sections: dict[str, Any]) -> Study:
    dense = task == "segmentation"
    network = {"network": "unet", "features": [4, 8]} if dense else {"network": "small-cnn"}
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "device", "task": task},
        "data": {"classes": ["a", "b", "c"], "dimensions": len(size), "size": list(size)},
        "model": network,
        # Adam would make a step of whatever differs in the last bit.
        "training": {"batch_size": 2, "local_steps": FEW, "optimiser": "sgd"},
    }
    for name, section in sections.items():
        content.setdefault(name, {}).update(section)
    return parse_study(content)


def write_site(folder: Path, study: Study) -> Path:
    """Write a site's images: 12 for training, 12 to validate on, 4 to test on."""
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n')
    numbers, size = np.random.default_rng(0), study.data.size or (20,) * study.data.dimensions
    splits = ["train"] * 12 + ["validation"] * 12 + ["test"] * 4
    values = numbers.normal(size=(len(splits), *size)).astype(np.float32)
    masks = numbers.integers(0, 3, (len(splits), *size)).astype(np.uint8)
    np.savez(folder / "set.npz", images=values, masks=masks)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient", "split", "age", "image", "mask", "label"))
        for number, split in enumerate(splits):
            places = (f"set.npz#images#{number}", f"set.npz#masks#{number}")
            writer.writerow((f"p{number}", split, 40 + number, *places, "abc"[number % 3]))
    return folder


def session_on(device: torch.device, study: Study, folder: Path) -> SiteSession:
    context = ModelContext.build(study, "cpu")
    network = arranged_for(context.network, device, "float32").to(device)
    return SiteSession(open_site(folder), replace(context, device=device, network=network))


def train(device: torch.device, study: Study, folder: Path) -> tuple[Traffic, Parameters]:
    """Train a round, after one that is not counted."""
    session = session_on(device, study, folder)
    first = read_parameters(session.context.network)
    with recorded():
        session.train(Instruction(study.digest, _RUN, 1, first, validate=False))
    with recorded() as traffic:
        update = session.train(Instruction(study.digest, _RUN, 2, first, validate=False))
    return traffic, update.parameters


def steps_of(study: Study, folder: Path) -> dict[str, Any]:
    """Return what one more step of training costs, and how far the result is from the CPU's."""
    few, _ = train(DEVICE, with_changes(study, {"training.local_steps": FEW}), folder)
    longer = with_changes(study, {"training.local_steps": MANY})
    many, there = train(DEVICE, longer, folder)
    _, here = train(_CPU, longer, folder)
    return {**_more(few, many), "apart": max(_apart(there[name], here[name]) for name in here)}


def batches_of(study: Study, folder: Path, surfaces: bool) -> dict[str, Any]:
    """Return what one more batch of an evaluation costs, and whether its sums are the CPU's."""
    session, one = session_on(DEVICE, study, folder), session_on(_CPU, study, folder)
    cohort, size = session.cohorts.validation, study.training.batch_size
    cohort.prepare()
    if study.training.patch_size is not None:
        size = 1
    measured, traffics = None, []
    for count in (FEW, FEW, MANY):  # the first prepares what is kept
        part = _FirstOf(cohort, count * size)
        with recorded() as traffic:
            measured = evaluate(
                session.context.network,
                part,
                study,
                DEVICE,
                session.loss,
                surfaces,  # type: ignore[arg-type]
            )
        traffics.append(traffic)
    here = evaluate(
        one.context.network,
        _FirstOf(cohort, MANY * size),  # type: ignore[arg-type]
        study,
        _CPU,
        one.loss,
        surfaces,
    )
    assert measured is not None
    same = _alike(measured.measured, here.measured)
    apart = abs(measured.loss - here.loss) / abs(here.loss)
    return {**_more(traffics[1], traffics[2]), "same": same, "apart": apart}


class _FirstOf:
    """The first examinations of a cohort."""

    def __init__(self, cohort: Any, count: int) -> None:
        self._cohort, self._count = cohort, count

    def __len__(self) -> int:
        return self._count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cohort, name)


class _Pointwise(nn.Module):
    """Fourteen classes from each voxel alone: the network itself needs no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 14))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.weight.reshape(1, -1, 1, 1, 1)


class _OneVolume:
    """A CT of an eighth of 512 x 512 x 300 along each axis."""

    size = (64, 64, 38)

    def __len__(self) -> int:
        return 1

    def case(self, index: int, device: torch.device = _CPU) -> Batch:
        numbers = torch.Generator().manual_seed(0)
        image = torch.randn(1, 1, *self.size, generator=numbers)
        mask = torch.randint(0, 14, (1, *self.size), generator=numbers)
        return Batch(image, None, mask).to(device)

    def spacing(self, index: int) -> tuple[float, ...]:
        return (1.0, 1.0, 1.0)

    def stored_mask(self, index: int) -> None:
        return None


CT = parse_study(
    {
        "study": {"name": "ct", "task": "segmentation"},
        "data": {"classes": [f"organ {n}" for n in range(14)], "dimensions": 3},
        "model": {"network": "unet", "features": [4, 8]},
        "training": {"patch_size": [12, 12, 12], "batch_size": 2},
    }
)


@contextmanager
def _scaled_parts() -> Iterator[None]:
    """Make parts as small beside this volume as they are beside a whole CT."""
    name = "_NUMBERS_OF_A_PART"
    before = getattr(windows, name, None)
    setattr(windows, name, 2**24 // 8**3)
    try:
        yield
    finally:
        setattr(windows, name, before)


def volume(capacity: float | None = None) -> dict[str, Any]:
    """Evaluate a volume; say the peak memory in copies of its logits in half precision."""
    half = 2 * 14 * np.prod(_OneVolume.size)
    network = _Pointwise()
    with _scaled_parts():
        here = evaluate(network, _OneVolume(), CT, _CPU, build_loss(CT, None, _CPU))  # type: ignore[arg-type]
        network = network.to(DEVICE)
        most = None if capacity is None else int(capacity * half)
        with recorded(most) as traffic:
            there = evaluate(network, _OneVolume(), CT, DEVICE, build_loss(CT, None, DEVICE))  # type: ignore[arg-type]
    return {
        "copies": traffic.peak_bytes / half,
        "same": _alike(there.measured, here.measured),
        "apart": abs(there.loss - here.loss) / abs(here.loss),
        "synchronisations": traffic.synchronisations,
    }


def clipping(method: str, counts: tuple[int, ...]) -> dict[str, Any]:
    """Return what the clipped sum of a private step waits for; six images of some patients."""
    study = study_of("classification", (16, 16), model={"normalisation": "group"})
    numbers = torch.Generator().manual_seed(0)
    examples = Batch(torch.randn(6, 1, 16, 16, generator=numbers), None, torch.arange(6) % 3)
    network, sums = build_network(study, 0), []
    for device in (_CPU, DEVICE):
        network, there = network.to(device), PatientBatch(examples.to(device), counts)
        loss = build_loss(study, None, device).per_sample
        with recorded() as traffic:
            sums.append(clipped_gradient_sum(network, there, loss, 0.5, method, 8))
    return {
        "synchronisations": traffic.synchronisations,
        "waits": dict(traffic.waits),
        "blocking": dict(traffic.blocking),
        "apart": max(_apart(sums[1][name].cpu(), sums[0][name]) for name in sums[0]),
    }


def noise() -> dict[str, Any]:
    """Return the copies that the noise of a network of 62 tensors takes."""
    sums = {f"layer.{number}": torch.zeros(3, 4, 5).to(DEVICE) for number in range(62)}
    plan = PrivacyPlan(0.05, 32, 1.0, 1.0, 1, 1, 1e-5, 8)
    key = bytes(range(32))
    with recorded() as traffic:
        there = noised_mean(sums, plan, Randomness(key))
    here = noised_mean({name: torch.zeros(3, 4, 5) for name in sums}, plan, Randomness(key))
    return {
        "transfers": traffic.transfers,
        "synchronisations": traffic.synchronisations,
        "apart": max(_apart(there[name].cpu(), here[name]) for name in here),
    }


def _alike(first: Any, second: Any) -> bool:
    """Return whether all arrays of two sums agree, up to rounding."""
    names = [name for name in vars(type(first)) if isinstance(getattr(first, name), np.ndarray)]
    assert names
    return all(np.allclose(getattr(first, name), getattr(second, name)) for name in names)


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first.double() - second.double()).abs().max())


def _more(few: Traffic, many: Traffic) -> dict[str, Any]:
    between = MANY - FEW
    return {
        "synchronisations": (many.synchronisations - few.synchronisations) / between,
        "transfers": (many.transfers - few.transfers) / between,
        "sent_bytes": (many.sent_bytes - few.sent_bytes) / between,
        "waits": dict(many.waits - few.waits),
        "blocking": dict(many.blocking - few.blocking),
    }


PATCHED = {"patch_size": [12, 12, 12], "patches_per_image": 2, "foreground_fraction": 0.5}
AGE = {"covariates": [{"name": "age", "mean": 50.0, "scale": 10.0}]}
STUDIES = {
    "classification": study_of("classification", (16, 16)),
    "dermoscopy": study_of("classification", (16, 16), data={"augmentation": "dermoscopy"}),
    "covariates": study_of("classification", (16, 16), data={"augmentation": "xray", **AGE}),
    "segmentation": study_of("segmentation", (16, 16), data={"augmentation": "mr"}),
    "clipped": study_of(
        "segmentation", (16, 16), data={"augmentation": "ct"}, training={"gradient_clip": 1.0}
    ),
    "patches": study_of(
        "segmentation", (20, 18, 16), data={"augmentation": "mr"}, training=PATCHED
    ),
    "small volumes": study_of(
        "segmentation", (20, 8, 8), data={"augmentation": "light"}, training=PATCHED
    ),
    "fedprox": study_of(
        "segmentation",
        (16, 16),
        data={"augmentation": "histology"},
        federation={"strategy": "fedprox"},
    ),
}


def main() -> None:
    """Do all of it; what fails says why."""
    applied.Generator = rare_changes.Generator = generator  # type: ignore[assignment, misc] # torch knows no other way
    folder, results = Path(sys.argv[1]), dict[str, Any]()

    def note(name: str, job: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        try:
            with present():
                results[name] = job(*arguments)
        except Exception as error:
            results[name] = {"failed": f"{type(error).__name__}: {error}"[:400]}

    for name in TRAINED:
        study = STUDIES[name]
        site = write_site(folder / name.replace(" ", "-"), study)
        note(f"training {name}", steps_of, study, site)
        if name in EVALUATED:
            note(f"evaluation {name}", batches_of, study, site, False)
    note("surfaces", batches_of, STUDIES["patches"], folder / "patches", True)
    note("volume", volume)
    note("volume without room", volume, 0.55)
    note("noise", noise)
    for method in METHODS:
        note(f"clipping {method}", clipping, method, (1, 3, 2))
    note("clipping, one image a patient", clipping, "ghost", (1,) * 6)
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
