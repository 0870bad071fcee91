"""Whether a study's whole plan fits under a hospital's caps: asked of the ledger, not charged."""

from pathlib import Path
from typing import Literal

from wardround.client.privacy.ledger.budget import Accountant, BudgetError, Caps, check_steps
from wardround.client.privacy.ledger.charges import MAIN_DATASET, TRAIN
from wardround.client.privacy.ledger.file import LEDGER_FILE, find_ledger_folder, read_ledger
from wardround.client.privacy.ledger.totals import LedgerBook, account_of
from wardround.common.privacy.accounting import Spend
from wardround.common.study.plans.patient_privacy import evaluation_plans, plan_charges
from wardround.common.study.study import Study

Reach = Literal["all", "some", "none"]


def reach_of(site_folder: Path, study: Study, caps: Caps) -> Reach:
    """Return for how many of a study's rounds the caps have room, after what is spent already.

    A run of it is reckoned from its beginning, with its measurements, as if none had begun.

    Raises:
        LedgerError: The ledger is damaged.
        InputError: dp-accounting is not installed.
    """
    plan = plan_charges(study)
    measured: dict[str, Spend] = {one.part: one.planned for one in evaluation_plans(study)}
    book = _book(site_folder)
    if _fit(site_folder, book, study, {TRAIN: plan.planned, **measured}, caps):
        return "all"
    return "some" if _fit(site_folder, book, study, {TRAIN: plan.spend()}, caps) else "none"


def _fit(
    folder: Path, book: LedgerBook, study: Study, planned: dict[str, Spend], caps: Caps
) -> bool:
    accountant, digest = Accountant(caps.lifetime_delta), study.digest
    try:
        check_steps(book.steps_of_study(digest) + planned[TRAIN].steps, caps, digest)
    except BudgetError:
        return False
    accounts: dict[str | None, list[Spend]] = {}
    for part, spend in planned.items():
        accounts.setdefault(account_of(folder, book, part), []).append(spend)
    return all(
        accountant.fits([*book.spends(MAIN_DATASET, digest, part), *spends], caps.study_epsilon)
        and accountant.fits([*book.spends(MAIN_DATASET, part=part), *spends], caps.lifetime_epsilon)
        for part, spends in accounts.items()
    )


def _book(folder: Path) -> LedgerBook:
    if not (find_ledger_folder(folder) / LEDGER_FILE).exists():
        return LedgerBook()
    return LedgerBook(read_ledger(folder).entries)
