"""What is attacked: a simulated site's patients, the network they train, and their protection."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.privacy.gradients.choice import exact_method
from wardround.client.site.folder import open_site
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.registry import build_loss
from wardround.common.errors import InputError, StudyError, known_names
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.masking import smallest_sum
from wardround.common.study.plans.patient_privacy import PrivacyPlan, plan_privacy
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.sections.privacy import PrivacySection
from wardround.common.study.study import Study

CANDIDATES = 20  # patients among whom a reconstruction is looked for


@dataclass(frozen=True, slots=True)
class Target:
    """A site's patients, one examination each, and the first model that it is sent.

    Attributes:
        examples: One batch of one a patient; those attacked first, then other candidates.
        plan: None if the study cannot be trained privately.
        plan_words: The plan in words; empty if there is none.
        own_plan: Whether the run itself was trained under the plan.
        beside: Of a run that masks its updates, the patients of the other sites who are in the same
            sum.
    """

    site: str
    study: Study
    network: nn.Module
    loss: MeanLoss
    examples: tuple[Batch, ...]
    plan: PrivacyPlan | None
    plan_words: str
    own_plan: bool
    beside: tuple[Batch, ...] = ()

    @property
    def originals(self) -> list[Tensor]:
        """What the network is given of each patient: the image, or the values of a table."""
        return [example.inputs[0][0] for example in self.examples]

    @property
    def method(self) -> str:
        """How gradients of patients are found for this network."""
        return exact_method(self.study, self.network)


def open_target(folder: Path, study: Study, seed: int) -> Target:
    """Open a site of a simulated run for attack.

    The network is the untrained one of the first round, in evaluation mode: dropout would only hide
    a part of the gradient from the attacker.

    Raises:
        InputError: The study trains on patches, or the site's data cannot be read.
    """
    if study.training.patch_size is not None:
        msg = (
            "this run trains on patches of volumes, and the attacks are for whole images: "
            "try a run with data.size and without training.patch_size."
        )
        raise InputError(msg)
    site = open_site(folder)
    cohort = open_cohorts(site, study).train
    network = build_network(study, study.federation.seed).eval()
    plan, words = _plan_for(study)
    return Target(
        site=site.name,
        study=study,
        network=network,
        loss=build_loss(study, cohort.class_counts(), torch.device("cpu")),
        examples=_choose(cohort, seed),
        plan=plan,
        plan_words=words,
        own_plan=what_leaves(study).noise_added_by == "site",
        beside=_of_others(folder, study) if study.federation.secure_aggregation else (),
    )


def _of_others(folder: Path, study: Study) -> tuple[Batch, ...]:
    """Return the patients of a round's other sites: of each as many as a step expects."""
    count = study.privacy.expected_patients or study.training.batch_size
    found: list[Batch] = []
    others = [one for one in sorted(folder.parent.glob("*/site.toml")) if one.parent != folder]
    if study.federation.masks.groups > 1:  # a site hides in its group alone
        others = others[: smallest_sum(study) - 1]
    for other in others:
        cohort = open_cohorts(open_site(other.parent), study).train
        found += [cohort.case(index) for index in range(min(count, len(cohort)))]
    return tuple(found)


def site_folder(run: Path, name: str | None) -> Path:
    """Return the folder of a site of a run, the first one if none is named.

    Raises:
        InputError: The run has no simulated sites, or none of this name.
    """
    folders = {f.parent.name: f.parent for f in sorted((run / "sites").glob("*/site.toml"))}
    if not folders:
        msg = (
            f"{run} has no simulated sites, and only those may be attacked: pictures of real "
            "patients must not be made. Give a folder that 'wardround simulate --out' wrote."
        )
        raise InputError(msg)
    if name is not None and name not in folders:
        raise InputError(known_names("site", name, folders))
    return folders[next(iter(folders)) if name is None else name]


def _choose(cohort: Cohort, seed: int) -> tuple[Batch, ...]:
    """Return an examination each of some patients, drawn by a seed."""
    generator = torch.Generator().manual_seed(seed)
    first: dict[int, int] = {}
    for index, patient in enumerate(cohort.patients.tolist()):
        first.setdefault(patient, index)
    order = torch.randperm(len(first), generator=generator).tolist()
    return tuple(cohort.case(first[patient]) for patient in order[:CANDIDATES])


def _plan_for(study: Study) -> tuple[PrivacyPlan | None, str]:
    """Return the study's privacy, or what it would be by default, and it in words."""
    private = study
    try:
        if what_leaves(study).noise_added_by != "site":
            defaults = PrivacySection(mode="patient").model_dump()
            private = with_changes(study, {f"privacy.{k}": value for k, value in defaults.items()})
        plan = plan_privacy(private)
    except StudyError:
        return None, ""
    words = (
        f"patient-level DP-SGD, epsilon {plan.epsilon:.3g} at delta {plan.delta:.0e} over "
        f"{plan.planned.steps} steps: clip norm {plan.clip_norm:g}, noise multiplier "
        f"{plan.noise_multiplier:.3g}, sampling rate {plan.sampling_rate:g}"
    )
    return plan, words
