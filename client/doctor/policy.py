"""What a site's policy says of a study, and what stands in the way of asking it."""

from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.egress.message_schema import update_bytes
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import Policy, open_policy
from wardround.client.policy.rules import Facts, Verdict, judge, require_packages
from wardround.client.privacy.ledger.budget import Accountant
from wardround.client.privacy.ledger.charges import MAIN_DATASET, TRAIN
from wardround.client.privacy.ledger.file import LEDGER_FILE, find_ledger_folder, read_ledger
from wardround.client.privacy.ledger.totals import LedgerBook, account_of
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import Site, open_site
from wardround.client.training.schedule import few_steps_note
from wardround.common.errors import DataError, InputError, PolicyError
from wardround.common.study.plans.patient_privacy import plan_charges
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

LEDGER_RULE = "spent before"


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """Each rule's word on a study.

    Attributes:
        problems: Why a rule could not be asked: the site's data does not fit the study, say.
        notes: What is to be known of who is in which part, and of the training here.
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
        LedgerError: The ledger is damaged.
        StudyError: What the study spends takes too long to work out.
        InputError: dp-accounting is not installed.
    """
    site, policy = open_site(folder), open_policy(folder)
    problems: list[str] = []
    cohorts = _cohorts(site, study, problems)
    patients = None if cohorts is None else cohorts.train.patient_count
    notes = () if cohorts is None else _notes(cohorts, study)
    facts = Facts(patients, _update_bytes(policy, study, problems))
    verdicts = (*judge(policy, study, facts), beside_the_spent(site.folder, study))
    return PolicyReport(site.name, verdicts, tuple(problems), notes)


def _notes(cohorts: Cohorts, study: Study) -> tuple[str, ...]:
    if study.privacy.mode == "patient":  # its steps are counted by the study alone
        return cohorts.parting
    return (*cohorts.parting, *few_steps_note(len(cohorts.train), study.training))


def beside_the_spent(folder: Path, study: Study) -> Verdict:
    """Say whether another run of a study fits beside what the site's ledger holds.

    Raises:
        PolicyError: The site has no policy, or one that cannot be read.
        LedgerError: The ledger is damaged.
        StudyError: What the study spends takes too long to work out.
        InputError: dp-accounting is not installed.
    """
    policy = open_policy(folder)
    if not study.privacy.charges_patients:
        return Verdict(LEDGER_RULE, True, "nothing is spent")
    if not (find_ledger_folder(folder) / LEDGER_FILE).exists():
        return Verdict(LEDGER_RULE, True, "the ledger is empty")
    book, accountant = LedgerBook(read_ledger(folder).entries), Accountant(policy.lifetime_delta)
    part = account_of(folder, book, TRAIN)
    whole = book.spends(MAIN_DATASET, part=part)
    own = book.spends(MAIN_DATASET, study.digest, part)
    with plan_limit():
        plan, spent = plan_charges(study), accountant.epsilon(whole)
        binds = policy.refused_above_the_cap == "study"
        asked = plan.planned if binds else plan.spend()
        fits = accountant.fits([*whole, asked], policy.lifetime_epsilon) and accountant.fits(
            [*own, asked], policy.study_epsilon
        )
        then = accountant.epsilon([*whole, plan.planned])
    reason = (
        f"epsilon {spent:.4g} of {policy.lifetime_epsilon:g} is spent on the training patients, "
        f"{accountant.epsilon(own):.4g} of it by this study; after another run of it {then:.4g}"
    )
    return Verdict(LEDGER_RULE, fits, reason)


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


def _update_bytes(policy: Policy, study: Study, problems: list[str]) -> int | None:
    """Return the size of an update; None where no network is built, as of a package not allowed."""
    try:
        require_packages(policy, study)
    except PolicyError:
        return None  # the rule says so itself
    try:
        return update_bytes(ModelContext.build(study, "cpu"))
    except InputError as error:
        problems.append(str(error))
        return None
