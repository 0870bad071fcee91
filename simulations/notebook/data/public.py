"""The public data sets that a study can name, as a table."""

from wardround.simulations.datasets.catalogue import (
    DatasetSummary,
    dataset_facts,
    describe_datasets,
)
from wardround.simulations.notebook.tables import Table, as_table


def public_data_sets() -> Table:
    """Return the public data sets: name, title, modality, task and licence.

    A study names one with ``simulation={"data": NAME, "options": {...}}``; the built-in studies
    (:func:`wardround.built_in_names`) do so.
    """
    return as_table([one for one in describe_datasets() if one.name != "folder"], DatasetSummary)


def data_set_facts(name: str) -> dict[str, str]:
    """Return everything known about a public data set, its options included; nothing is read.

    Args:
        name: One of :func:`public_data_sets`.

    Raises:
        InputError: The name is unknown.
    """
    return dataset_facts(name)
