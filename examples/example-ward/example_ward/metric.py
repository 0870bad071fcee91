"""A metric: sums over examinations, and one number in [0, 1] that follows from them."""

import math

import torch
from torch import Tensor


class Kappa:
    """Cohen's kappa of a classification, negative agreement counted as 0."""

    def size(self, classes: int) -> int:
        """Return the cells of a table: truth by answer."""
        return classes * classes

    def count(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a 1 in the cell of each of B examinations, (B, K * K)."""
        classes = outputs.shape[1]
        cells = targets * classes + outputs.argmax(1)
        return torch.nn.functional.one_hot(cells, classes * classes).double()

    def value(self, sums: list[float], examinations: int) -> float:
        """Return (observed - expected) / (1 - expected) agreement."""
        classes = math.isqrt(len(sums))
        table = torch.tensor(sums, dtype=torch.float64).reshape(classes, classes)
        total = float(table.sum())
        if not total:
            return math.nan
        observed = float(table.diagonal().sum()) / total
        expected = float((table.sum(0) * table.sum(1)).sum()) / total**2
        return math.nan if expected == 1 else max(0.0, (observed - expected) / (1 - expected))
