"""The strategies that Flower ships and that a study may name."""

# Those that combine arrays and no more: not the ones for trees, which combine no arrays, nor the
# wrappers for privacy, which need a strategy inside and are no patient-level promise. FedProx
# and QFedAvg have a half at the site, which 'fedprox' and 'qfedavg' have here.
_STOCK = (
    "Bulyan",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedMedian",
    "FedTrimmedAvg",
    "FedYogi",
    "Krum",
    "MultiKrum",
)


def stock_names() -> tuple[str, ...]:
    """Return the names that may stand after ``flower:``."""
    return _STOCK
