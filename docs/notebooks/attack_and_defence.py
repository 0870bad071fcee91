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
# # Attack and defence
#
# A server that takes the mean of what hospitals send believes every one of them. One machine that
# was broken into, or one hospital with a grudge, can spoil the model of all. Robust rules look at
# the updates together and give a lone voice little weight.
#
# ## By hand
#
# Five honest models of two numbers, near (1, 1), and two that lie.

# %%
import numpy as np
import pandas as pd

import wardround as wr

draw = np.random.default_rng(0)
honest = [{"weights": draw.normal(1.0, 0.05, 2)} for _ in range(5)]
liars = [{"weights": np.array([-20.0, -20.0])}] * 2
rules = ("fedavg", "coordinate-median", "multi-krum", "geometric-median")
combined = {
    rule: wr.strategies.aggregate(
        honest + liars, rule, **({} if rule == "fedavg" else {"assumed_hostile": 2})
    )["weights"]
    for rule in rules
}
pd.DataFrame(combined, index=["first", "second"]).T.round(2)

# %% [markdown]
# The mean is dragged to about -5. The robust rules stay near 1, because five agree.
#
# ## In a federation
#
# Eight hospitals look for a bright spot. Two of them (7 and 8) send the opposite of what they
# learnt, eight times as strong. The study says so in its section `simulation`, which no real
# hospital reads.

# %%
labels = draw.integers(0, 2, 480)
images = draw.normal(100, 30, (480, 20, 20))
for number in np.flatnonzero(labels):
    row, column = draw.integers(2, 12, 2)
    images[number, row : row + 6, column : column + 6] += 45
data = wr.data.from_arrays(
    "eight-hospitals",
    np.clip(images, 0, 255).astype("uint8"),
    labels,
    classes=["clear", "spot"],
    patients=range(480),
    sites=[f"hospital-{number % 8 + 1}" for number in range(480)],
    replace=True,
)
peace = data.study(
    "eight hospitals",
    rounds=6,
    optimiser="sgd",
    learning_rate=0.05,
    momentum=0.9,
    features=[8, 16],
    batch_size=8,
    local_epochs=2,
    keep="last",
    test_fraction=0.35,
)
attackers = {"kind": "sign-flip", "sites": ["hospital-7", "hospital-8"], "strength": 8.0}
attacked = peace.with_changes(adversary=[attackers])
ready = {"options": {"assumed_hostile": 2}}
studies = {
    "all honest": peace,
    "attacked, mean": attacked,
    "attacked, median": attacked.with_changes(strategy="coordinate-median", federation=ready),
    "attacked, multi-krum": attacked.with_changes(strategy="multi-krum", federation=ready),
}
runs = {name: wr.simulate(study, compare=False) for name, study in studies.items()}
values = {name: run.value() for name, run in runs.items()}
pd.Series(values, name="AUROC on test patients").round(3)

# %% [markdown]
# Two of eight are enough to bring the mean down to little more than guessing (0.5). With the
# median or multi-Krum the model is nearly as good as among honest hospitals.
#
# ## Round by round

# %%
rounds = pd.DataFrame({name: run.history.set_index("round")["value"] for name, run in runs.items()})
rounds.round(3)

# %% [markdown]
# Robustness has a price as well: a rule that distrusts outliers also distrusts the one hospital
# whose patients really are different, and each rule needs enough honest hospitals. With too few it
# refuses:

# %%
try:
    wr.strategies.aggregate(honest[:2] + liars, "multi-krum", assumed_hostile=2)
except wr.RunError as error:
    print(error)
