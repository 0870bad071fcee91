"""What of a site's privacy budget is spent and left, from its ledger."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PrivacyLeft:
    """The account of one data set.

    Attributes:
        spent: Epsilon, at ``delta``.
        left: Until the hospital's lifetime cap.
    """

    dataset: str
    spent: float
    left: float
    cap: float
    delta: float

    @property
    def sentence(self) -> str:
        """It in words."""
        return (
            f"privacy of data set {self.dataset}: epsilon {self.spent:.4g} of {self.cap:g} is "
            f"spent at delta {self.delta:g}, {self.left:.4g} is left"
        )


def read_privacy_left(site_folder: Path) -> tuple[PrivacyLeft, ...]:
    """Return the account of each data set; none where no private study has ever run.

    Raises:
        LedgerError: The ledger is damaged.
        InputError: dp-accounting is not installed.
    """
    from wardround.client.privacy.ledger.file import (
        LEDGER_FILE,
        find_ledger_folder,
        read_ledger,
    )
    from wardround.client.privacy.ledger.report import report_ledger

    if not (find_ledger_folder(site_folder) / LEDGER_FILE).exists():
        return ()
    report = report_ledger(read_ledger(site_folder).entries)
    return tuple(
        PrivacyLeft(one.dataset, one.epsilon, one.remaining, one.cap, one.delta)
        for one in report.datasets
    )
