"""What of a site's privacy budget is spent and left, from its ledger.

Run as a module with a site folder it prints the largest share of a cap that is spent, a part each:
accounting needs packages that a daemon does without.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PrivacyLeft:
    """The account of one part of a data set.

    Attributes:
        spent: Epsilon, at ``delta``.
        left: Until the hospital's lifetime cap.
    """

    dataset: str
    part: str
    spent: float
    left: float
    cap: float
    delta: float

    @property
    def sentence(self) -> str:
        """It in words."""
        return (
            f"privacy of data set {self.dataset}, {self.part} patients: epsilon {self.spent:.4g} "
            f"of {self.cap:g} is spent at delta {self.delta:g}, {self.left:.4g} is left"
        )


def read_privacy_left(site_folder: Path) -> tuple[PrivacyLeft, ...]:
    """Return the account of each part of each data set; none where no private study has ever run.

    Raises:
        LedgerError: The ledger is damaged.
        InputError: dp-accounting is not installed.
    """
    from wardround.client.data.manifest.parts.written_parts import parts_are_mixed
    from wardround.client.privacy.ledger.file import (
        LEDGER_FILE,
        find_ledger_folder,
        read_ledger,
    )
    from wardround.client.privacy.ledger.report import report_ledger

    if not (find_ledger_folder(site_folder) / LEDGER_FILE).exists():
        return ()
    report = report_ledger(read_ledger(site_folder).entries, parts_are_mixed(site_folder))
    return tuple(
        PrivacyLeft(one.dataset, one.part, one.epsilon, one.remaining, one.cap, one.delta)
        for one in report.datasets
    )


def spent_ratios(site_folder: Path) -> dict[str, float]:
    """Return for each part of the patients how much of a cap is spent, 1 being all of it.

    Of several data sets the one counts that has least left.
    """
    found: dict[str, float] = {}
    for one in read_privacy_left(site_folder):
        found[one.part] = max(found.get(one.part, 0.0), one.spent / one.cap)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(spent_ratios(Path(sys.argv[1]))) + "\n")
