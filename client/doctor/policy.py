"""What a site's policy says of a study, and what stands in the way of asking it."""

from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.cohort import Cohorts, open_cohorts
from wardround.client.egress.message_schema import update_bytes
from wardround.client.model_context import ModelContext
from wardround.client.policy.policy import open_policy
from wardround.client.policy.rules import Facts, Verdict, judge
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError, InputError, PolicyError
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """Each rule's word on a study.

    Attributes:
        problems: Why a rule could not be asked: the site's data does not fit the study, say.
        notes: What is to be known of who is in which part.
    """

    site: str
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the site would take part."""
        return not self.problems and all(verdict.allowed for verdict in self.verdicts)


def evaluate_policy(folder: Path, study: Study) -> PolicyReport:
    """Hold a study against the policy of a site folder, with the data that lies there.

    Raises:
        DataError: It is no site folder.
        PolicyError: It has no policy, or one that cannot be read.
    """
    site, policy = open_site(folder), open_policy(folder)
    problems: list[str] = []
    cohorts = _cohorts(site, study, problems)
    patients = None if cohorts is None else cohorts.train.patient_count
    notes = () if cohorts is None else cohorts.parting
    facts = Facts(patients, _update_bytes(study, problems))
    return PolicyReport(site.name, tuple(judge(policy, study, facts)), tuple(problems), notes)


def require_cohort(folder: Path, study: Study) -> None:
    """Check that a site has patients enough for a study that protects them, before it is approved.

    It is asked of a person here and now, and not of the site when a server asks: whether there is
    one patient more or less must not decide what the server is told.

    Raises:
        DataError: It is no site folder, or its data does not fit the study.
        PolicyError: There are too few, or the site has no policy.
    """
    if what_leaves(study).noise_added_by != "site":
        return
    site, needed = open_site(folder), open_policy(folder).smallest_cohort
    found = open_cohorts(site, study, keeps_parts=False).train.patient_count
    if found < needed:
        msg = (
            f"the site has {found} training patients for this study, and its policy asks for "
            f"{needed}: add patients, or lower smallest_cohort in policy.toml."
        )
        raise PolicyError(msg)


def _cohorts(site: Site, study: Study, problems: list[str]) -> Cohorts | None:
    try:
        return open_cohorts(site, study, keeps_parts=False)
    except DataError as error:
        problems.append(str(error))
        return None


def _update_bytes(study: Study, problems: list[str]) -> int | None:
    try:
        return update_bytes(ModelContext.build(study, "cpu"))
    except InputError as error:
        problems.append(str(error))
        return None
