"""What a simulated run charged to each site's patients, read from the sites' own ledgers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from wardround.client.data.manifest.parts.written_parts import parts_are_mixed
from wardround.client.privacy.ledger.file import LEDGER_FOLDER, read_ledger
from wardround.client.privacy.ledger.report import DatasetReport, report_ledger
from wardround.simulations.run_files.folder import PrivacyRow


def privacy_rows(folders: Sequence[Path]) -> Iterator[PrivacyRow]:
    """Yield a row for every part of the patients of every site that has a ledger.

    Args:
        folders: Site folders; those of a study without privacy for patients have no ledger.

    Raises:
        LedgerError: A ledger was changed.
    """
    for folder in folders:
        if not (folder / LEDGER_FOLDER).is_dir():
            continue
        for dataset in _accounts(folder):
            yield PrivacyRow(
                site=folder.name,
                part=dataset.part,
                epsilon=dataset.epsilon,
                delta=dataset.delta,
                cap=dataset.cap,
                charged=sum(run.reservations for run in dataset.runs),
                released=sum(run.released for run in dataset.runs),
                steps=sum(run.steps for run in dataset.runs),
            )


def _accounts(folder: Path) -> tuple[DatasetReport, ...]:
    return report_ledger(read_ledger(folder).entries, parts_are_mixed(folder)).datasets
