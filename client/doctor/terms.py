"""What a person is told before they approve a study, in about ten lines; the record holds them.

They say what this very site would give: its patients, its policy, and what is spent already.
"""

from collections.abc import Iterator
from pathlib import Path

from wardround.client.data.cohorts import open_cohorts
from wardround.client.policy.approvals import Terms
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import (
    Policy,
    approved_rounds,
    open_policy,
    rounds_of_approval,
)
from wardround.client.policy.rules import planned_epsilon
from wardround.client.policy.trained_rounds import trained_rounds
from wardround.client.privacy.ledger.charges import MAIN_DATASET, TRAIN
from wardround.client.privacy.ledger.file import LEDGER_FILE, find_ledger_folder, read_ledger
from wardround.client.privacy.ledger.totals import LedgerBook, account_of
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError
from wardround.common.privacy.accounting import epsilon_of
from wardround.common.runtime.printable import printable
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.patient_privacy import (
    drawn_and_expected,
    evaluation_plans,
    steps_of,
)
from wardround.common.study.plans.statistics import (
    cell_count,
    fewest_for_combat,
    moment_side,
)
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

_METRICS = {
    "values": "metrics of three decimals",
    "sums": "exact tables of counts, whose cells may be single patients",
    "none": "no metric",
}


def terms_of(folder: Path, study: Study) -> Terms:
    """Return what an approval of a study would be for, at a site as it is now.

    Raises:
        DataError: It is no site folder.
        PolicyError: It has no policy, or one that cannot be read.
        LedgerError: The ledger is damaged.
        StudyError: What the study spends takes too long to work out.
        InputError: dp-accounting is not installed.
    """
    site, policy = open_site(folder), open_policy(folder)
    with plan_limit():
        if study.statistics.ask:
            return Terms(rounds_of_approval(policy, study), _of_statistics(site, policy, study))
        lines = (
            f"study: {printable(study.name)}, digest {study.digest}",
            _asked(study),
            *_packages(study, policy),
            _rounds(site.folder, policy, study),
            _patients(site, study),
            _promise(study),
            _evaluated(study, policy),
            _leaving(study, policy),
            _limits(policy),
            *_spent(site.folder, policy, study),
        )
    return Terms(rounds_of_approval(policy, study), lines)


def _of_statistics(site: Site, policy: Policy, study: Study) -> tuple[str, ...]:
    """Return what an approval is for where a study asks for statistics and trains nothing."""
    if study.statistics.combat:
        side = moment_side(study)
        return (
            f"study: {printable(study.name)}, digest {study.digest}",
            f"asked: {side * (side + 1) // 2} sums of covariates of the training patients and of "
            "their products, exact, for ComBat; nothing is trained",
            _patients(site, study),
            f"leaves: one answer, of {fewest_for_combat(study, policy.smallest_cell)} patients at "
            "least, without noise",
            *_spent(site.folder, policy, study),
        )
    of_whom = "without noise, rounded"
    if study.privacy.mode == "patient":
        of_whom = f"with noise: epsilon {planned_epsilon(study):.4g} for each training patient"
    return (
        f"study: {printable(study.name)}, digest {study.digest}",
        f"asked: {cell_count(study)} cells of histograms of the training patients, to plan from; "
        "nothing is trained",
        _patients(site, study),
        f"leaves: one answer, {of_whom}; a cell has at least {policy.smallest_cell} patients",
        *_spent(site.folder, policy, study),
    )


def _asked(study: Study) -> str:
    training, rounds = study.training, study.federation.rounds
    if training.local_steps is not None or study.privacy.mode == "patient":
        work = f"{steps_of(study)} steps"
    else:
        work = f"{training.local_epochs or 1} pass(es) over the training patients"
    return (
        f"asked: to train {study.model.network} for {study.study.task}, {rounds} rounds of {work}"
    )


def _packages(study: Study, policy: Policy) -> Iterator[str]:
    """Yield whose code would run beside Wardround's, and whether the policy lists it."""
    listed = dict(policy.packages)
    for package, found in study.packages.items():
        said = "listed in the policy" if listed.get(package) == found else "not listed so"
        yield f"package: {package}, whose files have the SHA-256 {found}; {said}"


def _rounds(folder: Path, policy: Policy, study: Study) -> str:
    once, before = rounds_of_approval(policy, study), approved_rounds(folder, study)
    if before is None:
        return "rounds: as many as are asked for, at a simulated site"
    whole = f", which with earlier ones makes {before + once}" if before else ""
    return (
        f"rounds: an approval is for {once}{whole}, over all runs; one that is trained again "
        "counts again"
    )


def _patients(site: Site, study: Study) -> str:
    try:
        cohorts = open_cohorts(site, study, keeps_parts=False)
        counts = [part.patient_count for part in (cohorts.train, cohorts.validation, cohorts.test)]
    except DataError as error:
        return f"patients: not known: {printable(str(error))}"
    said = "patients here: {} to train, {} to validate, {} to test".format(*counts)
    far = drawn_and_expected(study, counts[0])
    if far is not None:
        drawn, expected = far
        said += (
            f". A private step draws {drawn:.1f} of them on average and divides their sum by "
            f"{expected}: this site's steps are {expected / drawn:.1f} times too small. Ask the "
            "study's author for another privacy.expected_patients or sampling_rate"
        )
    return said


def _promise(study: Study) -> str:
    masks = plan_masking(study)
    if masks is not None:
        patients = "none for a single patient"
        if study.privacy.charges_patients:
            patients = (
                f"epsilon {planned_epsilon(study):.4g} at delta {study.privacy.delta:g} for each "
                "training patient, over the rounds of one approval"
            )
        return f"privacy: the server learns sums of at least {masks.smallest_sum} sites; {patients}"
    if study.privacy.mode == "patient":
        return (
            f"privacy: epsilon {planned_epsilon(study):.4g} at delta {study.privacy.delta:g} for "
            "each training patient, over the rounds of one approval"
        )
    if study.privacy.mode == "site":
        return "privacy: none from the server, and none for a single patient"
    return "privacy: none: what leaves may show something of a patient"


def _evaluated(study: Study, policy: Policy) -> str:
    if what_leaves(study).noised_metrics:
        said = [
            f"{plan.part} patients: {plan.answers} answer{'s' * (plan.answers > 1)} with noise, "
            f"epsilon {plan.epsilon:.4g} for each of these patients"
            for plan in evaluation_plans(study)
        ]
        return f"evaluated: {'; '.join(said) or 'nobody'}. No other answer is given"
    if what_leaves(study).masked:
        return (
            "evaluated, without noise: on the validation patients, in every round and of the last "
            "model, in the sum of all sites alone; never else"
        )
    return (
        "evaluated, without noise: on the validation patients in every round, on them and on the "
        f"test patients whenever the server asks, {policy.largest_evaluations_of_a_study} times at "
        f"most and {policy.largest_evaluations_a_day} times a day"
    )


def _leaving(study: Study, policy: Policy) -> str:
    leaves, cell = what_leaves(study), policy.smallest_cell
    if leaves.masked:
        sums = ", sums of metrics" if policy.metrics == "sums" else ""
        beside = f", counts of examinations and steps, the training loss{sums}"
        return (
            "leaves in a round, in the sum of all sites alone: the network's shared numbers"
            f"{' with noise' if leaves.noised_metrics else beside}. In an evaluation: "
            f"{'sums of metrics, in the sum of all sites alone' if sums else 'nothing'}"
        )
    noise = " with noise" if leaves.noise_added_by == "site" else ""
    said = [f"the network's shared numbers{noise}"]
    if leaves.unnoised_arrays and study.federation.compression != "none":
        said[0] += ", shortened"
    if leaves.counts:
        said.append(f"counts of examinations and steps in multiples of {cell}")
    if leaves.losses and policy.metrics != "none":
        said.append("the training loss")
    if leaves.times:
        said.append("the seconds")
    if leaves.round_metrics:
        said.append(_METRICS[policy.metrics])
    measured = _METRICS[policy.metrics]
    if leaves.noised_metrics:
        measured = "no metric" if policy.metrics == "none" else "one vector of sums with noise"
    return f"leaves in a round: {'; '.join(said)}. In an evaluation: {measured}"


def _limits(policy: Policy) -> str:
    hours, minutes = policy.training_hours, policy.largest_training_minutes
    when = "at any time" if hours is None else f"from {hours[0]:%H:%M} to {hours[1]:%H:%M}"
    long = "any time" if minutes is None else f"at most {minutes:g} minutes"
    return (
        f"limits: {policy.study_epsilon:g} epsilon a study, {policy.lifetime_epsilon:g} for all of "
        f"them; training {when}, a round takes {long}; messages of at most "
        f"{policy.largest_message_megabytes:g} MB"
    )


def _spent(folder: Path, policy: Policy, study: Study) -> Iterator[str]:
    allowed, is_private = approved_rounds(folder, study), study.privacy.charges_patients
    book = _book(folder)
    if is_private:
        # A round that was planned with other steps is none of this digest.
        steps = steps_of(study) if study.privacy.mode == "patient" else 1
        trained = book.steps_of_study(study.digest) / steps
    else:
        trained = trained_rounds(folder, study.digest)
    of_approved = "" if not allowed else f" of {allowed} that are approved"
    yield f"trained already: {trained:g} rounds{of_approved}"
    delta, cap = policy.lifetime_delta, policy.lifetime_epsilon
    said, parts = [], book.parts(MAIN_DATASET) or [TRAIN]
    for part in dict.fromkeys(account_of(folder, book, part) for part in parts):
        own = epsilon_of(book.spends(MAIN_DATASET, study.digest, part), delta) if is_private else 0
        whole = epsilon_of(book.spends(MAIN_DATASET, part=part), delta)
        said.append(
            f"{part or 'all'} patients epsilon {own:.4g} by this study, {whole:.4g} of {cap:g} by "
            "all studies"
        )
    yield f"spent already, at delta {delta:g}: {'; '.join(said)}"


def _book(folder: Path) -> LedgerBook:
    if not (find_ledger_folder(folder) / LEDGER_FILE).exists():
        return LedgerBook()
    return LedgerBook(read_ledger(folder).entries)
