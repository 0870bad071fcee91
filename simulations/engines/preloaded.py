"""Imported once by the process that forks workers: what each worker would import for itself.

The first optimiser makes torch import its compiler, which takes more than a second.
"""

import torch

torch.optim.SGD([torch.zeros(1)]).step()
