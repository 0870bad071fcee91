"""What a study's packs are computed from: single patients' numbers, which stay at the site."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.cohort import Cohort
from wardround.client.session.session import SiteSession
from wardround.client.training.case_predictions import (
    ClassifiedCases,
    SegmentedCases,
    classified_cases,
    logits_of,
    segmented_cases,
)
from wardround.common.messages.instructions import Instruction
from wardround.common.metrics.sums import has_surfaces
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.study.plans.packs import compared_with, groups_of, names_pack
from wardround.common.study.plans.subgroups import groupings_of
from wardround.common.study.study import Study

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Cases: TypeAlias = ClassifiedCases | SegmentedCases


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """V validation examinations, on which a temperature is fitted.

    Attributes:
        logits: ``(V, K)``.
        truth: ``(V, K)`` which class each is of.
        patients: ``(V,)``.
    """

    logits: Floats
    truth: Flags
    patients: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredPacks:
    """What a site computes its packs from.

    Attributes:
        cases: Test examinations as the model answers them.
        other: The same as the model answers them that it is held against; None if nobody asks.
        groups: ``(N, G)`` which test examination is of which of the study's groups.
        validation: None if nobody asks.
    """

    cases: Cases
    other: Cases | None
    groups: Flags
    validation: Validation | None


def measure_packs(session: SiteSession, instruction: Instruction) -> MeasuredPacks:
    """Return what the packs of an instruction's model are computed from.

    Args:
        instruction: Of the split "test".

    Raises:
        DataError: An image cannot be read.
    """
    study, context = session.context.study, session.context
    test = session.ready(instruction)
    cases, validation, other = _cases(session, test), None, None
    if names_pack(study, "calibration"):
        validation = _validation(session)
    if names_pack(study, "gains"):
        write_parameters(context.network, _other_model(session, instruction))
        other = _cases(session, test)
    return MeasuredPacks(cases, other, _groups(test, study), validation)


def measure_cases(session: SiteSession, instruction: Instruction) -> Cases:
    """Return the test examinations as an instruction's model answers them."""
    return _cases(session, session.ready(instruction))


def _cases(session: SiteSession, cohort: Cohort) -> Cases:
    study, context = session.context.study, session.context
    if study.task.dense:
        surfaces = has_surfaces(study) and names_pack(study, "intervals")
        return segmented_cases(context.network, cohort, study, context.device, surfaces)
    return classified_cases(context.network, cohort, study, context.device)


def _validation(session: SiteSession) -> Validation:
    context, cohort = session.context, session.cohorts.validation
    logits = logits_of(context.network, cohort, context.study, context.device)
    classes = np.arange(context.study.class_count)
    truth = cohort.targets.numpy().reshape(-1, 1) == classes
    return Validation(logits.double().numpy(), truth, cohort.patients.numpy())


def _other_model(session: SiteSession, instruction: Instruction) -> Parameters:
    """Return the model that the common one is held against: one that the site makes itself."""
    context = session.context
    if compared_with(context.study) == "personal":
        return context.on_base(instruction.parameters)
    network = build_network(context.study, context.study.federation.seed)
    load_pretrained(network, context.study)
    return read_parameters(network)


def _groups(cohort: Cohort, study: Study) -> Flags:
    groups = groups_of(study) if names_pack(study, "subgroups") else ()
    told = [grouping.name for grouping in groupings_of(study) if not grouping.from_image]
    found = [
        [one.groups[told.index(grouping.name)] == group for grouping, group in groups]
        for one in cohort.examinations
    ]
    return np.array(found, dtype=np.bool_).reshape(len(found), len(groups))
