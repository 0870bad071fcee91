# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Strategies compared
#
# Federated averaging takes the mean of the hospitals' models. When hospitals differ, other
# strategies promise more. Here are four hospitals with different scanners (their pictures have
# other contrasts) and different patients (the spot that we look for is common in some and rare in
# others).

# %%
import numpy as np
import pandas as pd

import wardround as wr

draw = np.random.default_rng(7)
hospitals = {  # patients, contrast of the scanner, share of patients with a spot
    "city": (120, 1.0, 0.5),
    "coast": (60, 0.6, 0.2),
    "hills": (60, 1.5, 0.8),
    "island": (40, 0.8, 0.15),
}
images, labels, sites = [], [], []
for name, (patients, contrast, share) in hospitals.items():
    for _ in range(patients):
        picture, spot = draw.normal(0.35, 0.12, (20, 20)), draw.random() < share
        if spot:
            row, column = draw.integers(2, 12, 2)
            picture[row : row + 6, column : column + 6] += 0.16
        images.append((np.clip(picture * contrast, 0, 1) * 255).astype("uint8"))
        labels.append("spot" if spot else "clear")
        sites.append(name)
data = wr.data.from_arrays(
    "scanners", images, labels, sites=sites, patients=range(len(sites)), replace=True
)
study = data.study(
    "strategies",
    rounds=6,
    optimiser="sgd",
    learning_rate=0.05,
    momentum=0.9,
    features=[8, 16],
    normalisation="batch",
    batch_size=16,
    local_epochs=2,
    test_fraction=0.4,
    metric="accuracy",
)
study

# %% [markdown]
# ## On the same patients, with the same seed
#
# A strategy is one word of the study. Everything else stays: the split, the first weights, the
# order of the patients.

# %%
values = {}
for strategy in ("fedavg", "fedprox", "scaffold", "fedbn"):
    run = wr.simulate(study.with_changes(strategy=strategy), compare=False)
    values[strategy] = {site: run.value(site=site) for site in ("all sites", *hospitals)}
compared = pd.DataFrame(values).T
compared.round(3)

# %% [markdown]
# Each row is a strategy, each column the accuracy on a hospital's own test patients. FedBN leaves
# the normalisation layers at the hospitals, so each scanner has its own: it answers just this kind
# of difference, and is never worse than plain averaging over all sites here. Whether it is with
# your data is what a simulation is for. These hospitals test 16 to 48 patients, so a difference of
# a few hundredths is chance; `wardround simulate --seeds 0,1,2` repeats a study for that reason.
#
# ## What the words mean

# %%
wr.strategies.list_strategies()[["strategy", "shared", "objective", "aggregation", "paper"]].head(8)

# %% [markdown]
# ## The rules by themselves
#
# The server's half of a strategy also works on plain arrays, without a study: three models of one
# number each, the third from a hospital with ten times the patients.

# %%
updates = [{"weight": np.array([1.0])}, {"weight": np.array([2.0])}, {"weight": np.array([6.0])}]
mean = wr.strategies.aggregate(updates, "fedavg", weights=[10, 10, 100])
median = wr.strategies.aggregate(updates, "coordinate-median")
mean, median

# %% [markdown]
# The weighted mean is (10 * 1 + 10 * 2 + 100 * 6) / 120 = 5.25; the median asks nobody for weights.
# A strategy that remembers something from round to round, like FedAdam's moments, is an object:

# %%
server = wr.strategies.Aggregator({"weight": np.array([0.0])}, "fedadam")
[float(server.step(updates)["weight"][0]) for _ in range(3)]
