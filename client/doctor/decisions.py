"""A person's decision on a study: what is checked and said before it, wherever it is made."""

from dataclasses import dataclass
from pathlib import Path

from wardround.client.doctor.policy import beside_the_spent, evaluate_policy, require_cohort
from wardround.client.doctor.terms import terms_of
from wardround.client.policy.approvals import (
    Terms,
    decide,
    full_digest,
    study_file,
)
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import POLICY_FILE, open_policy
from wardround.client.policy.rules import APPROVAL_RULE, planned_epsilon
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, require_promise
from wardround.common.study.study import Study

SHOWN_DIGITS = 16  # of a digest: as many as a decision takes


@dataclass(frozen=True, slots=True)
class Approval:
    """What a person is about to approve.

    Attributes:
        terms: What they are told, and what is written down of it.
        spending: What it spends of what the policy allows, in a sentence.
        hindrance: Why the site would refuse it all the same, in a sentence; "" where it would not.
    """

    study: Study
    terms: Terms
    spending: str
    hindrance: str = ""

    @property
    def question(self) -> str:
        """What a person is told last before they decide."""
        return f"{self.spending} {self.hindrance}".strip()


def prepare_approval(site: Path, given: str) -> Approval:
    """Check that a study can be approved at a site, and return what the person has to be told.

    Args:
        given: A study file, or a digest of a study that the site knows, or its first digits.

    Raises:
        InputError: The study is not known here.
        DataError, PolicyError, LedgerError, StudyError: It cannot be approved as things are.
    """
    study = find_study(site, given)
    require_cohort(site, study)
    with plan_limit():
        require_promise(study)
    terms = terms_of(site, study)
    return Approval(study, terms, _spending(site, study), _hindrance(site, study))


def approve(site: Path, approval: Approval) -> str:
    """Write an approval down, and return what is said of it.

    Raises:
        InputError: It cannot be written.
        PolicyError: The file of decisions is damaged.
    """
    study = approval.study
    decision = decide(site, study.digest, "approved", study, approval.terms)
    said = f"{decision.account} has approved {decision.digest} ({decision.study})."
    return f"{said} {approval.hindrance}".strip()


def reject(site: Path, digits: str) -> str:
    """Write a rejection down, and return what is said of it.

    Raises:
        InputError: The study is not known here, or it cannot be written.
        PolicyError: The file of decisions is damaged.
    """
    open_site(site)
    decision = decide(site, full_digest(site, digits.strip().lower()), "rejected")
    name = f" ({decision.study})" if decision.study else ""
    return f"{decision.account} has rejected {decision.digest}{name}."


def find_study(site: Path, given: str) -> Study:
    """Return the study of a file, or the one that this site knows by these digits.

    Raises:
        InputError: The site does not hold it, or its file was changed.
    """
    open_site(site)
    digits, path = given.strip().lower(), Path(given)
    if not path.is_file():
        digest = full_digest(site, digits)
        known = study_file(site, digest)
        if known is None:
            msg = (
                f"this site does not hold the study {digest[:SHOWN_DIGITS]}, so it cannot say what "
                "it asks for: give the study's file, or wait until the server asks for it."
            )
            raise InputError(msg)
        path = known
    study = load_study(path, planned=False)
    if path != Path(given) and not study.digest.startswith(digits):
        changed = f"{path} was changed, it is not the study {digits[:SHOWN_DIGITS]}"
        msg = f"{changed}: give the study's file."
        raise InputError(msg)
    return study


def _hindrance(site: Path, study: Study) -> str:
    """Return what but the missing approval stands in the way, as the server will hear it, too."""
    report = evaluate_policy(site, study)
    denied = [
        f"{one.rule}: {one.reason}"
        for one in report.verdicts
        if not one.allowed and one.rule != APPROVAL_RULE
    ]
    reasons = "; ".join((*denied, *report.problems))
    if not reasons:
        return ""
    return (
        f"This site refuses it all the same ({reasons}): change {POLICY_FILE} where it names a "
        "rule, or ask for another study."
    )


def _spending(site: Path, study: Study) -> str:
    if not study.privacy.charges_patients:
        return "This spends no epsilon: no patient is promised privacy, and nothing is counted."
    cap, reason = open_policy(site).lifetime_epsilon, beside_the_spent(site, study).reason
    with plan_limit():
        planned = planned_epsilon(study)
    return f"This spends epsilon {planned:.4g} of {cap:g}: {reason}."
