"""Data for a study: own arrays and tables as hospitals, and the public data sets there are.

``from wardround import data``.
"""

from wardround.simulations.notebook.data.arrays import from_arrays
from wardround.simulations.notebook.data.own_data import AssumptionWarning, OwnData
from wardround.simulations.notebook.data.public import data_set_facts, public_data_sets
from wardround.simulations.notebook.data.table import from_table

__all__ = [
    "AssumptionWarning",
    "OwnData",
    "data_set_facts",
    "from_arrays",
    "from_table",
    "public_data_sets",
]
