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
# # Privacy and its price
#
# A model remembers some of what it was trained on. Differential privacy bounds that: with a small
# epsilon, nobody who sees the model can tell whether a given patient took part. It is bought with
# noise, and noise costs accuracy. How much, depends on the number of patients above all.
#
# ## The accountant by itself
#
# Nothing but numbers goes in: how often a patient is drawn, how many steps there are, how much
# noise.

# %%
import numpy as np
import pandas as pd

import wardround as wr

wr.privacy.epsilon(noise_multiplier=1.1, sampling_rate=0.01, steps=1000, delta=1e-5)

# %% [markdown]
# And backwards: which noise does a budget need, for 60 steps that each draw one patient in ten? The
# last column is the noise on each number of the mean, at a hospital with 400 patients.

# %%
price = wr.privacy.trade_offs(
    [8, 4, 2, 1, 0.5, 0.03], steps=60, sampling_rate=0.1, delta=1e-4, patients=400
)
price.round(3)

# %% [markdown]
# Halving a small epsilon doubles the noise. Twice the patients halve it again (with the same rate
# the noise is shared by twice as many): this is why hospitals join.
#
# ## A study with and without
#
# Three hospitals, 1,500 patients, eight blood markers; four of them matter.

# %%
draw = np.random.default_rng(3)
relation = np.array([1.44, -0.96, 0.72, 0.48, 0, 0, 0, 0])
parts = []
for hospital, patients in {"north": 600, "south": 500, "west": 400}.items():
    markers = draw.normal(size=(patients, 8))
    part = pd.DataFrame(markers, columns=[f"marker {number}" for number in range(1, 9)])
    part["ill"] = draw.random(patients) < 1 / (1 + np.exp(-markers @ relation))
    part["hospital"] = hospital
    parts.append(part)
frame = pd.concat(parts, ignore_index=True)
frame["patient"] = [f"P{number:04d}" for number in frame.index]
data = wr.data.from_table("markers", frame, "ill", patient="patient", site="hospital", replace=True)
study = data.study(
    "markers",
    features=[],
    rounds=15,
    local_steps=4,
    learning_rate=0.05,
    batch_size=32,
    keep="last",
    validation_fraction=0,
    test_fraction=0.3,
)
study

# %% [markdown]
# `epsilon` makes it a study that protects each patient; the noise is solved for the budget. Each
# hospital keeps a ledger of what was spent on its patients, and refuses when its own cap is
# reached, whatever the server asks for.

# %%
found = {"no privacy": wr.simulate(study, compare=False)}
for epsilon in (8, 1, 0.03):
    private = study.with_changes(
        mode="patient", epsilon=epsilon, delta=1e-4, sampling_rate=0.1, expected_patients=40
    )
    found[f"epsilon {epsilon:g}"] = wr.simulate(private, compare=False)
values = {name: run.value() for name, run in found.items()}
pd.Series(values, name="AUROC on test patients").round(3)

# %% [markdown]
# With 400 and more patients a hospital, an epsilon of 8 or 1 costs at most a few hundredths of
# AUROC. At 0.03 the noise drowns most of what there is to learn. With fewer patients this happens
# at larger budgets.
#
# ## What was really spent
#
# The ledgers of the hospitals say the same as the study promised, and never more.

# %%
spent = found["epsilon 1"].privacy
spent[["site", "part", "epsilon", "delta", "steps"]]

# %%
plan = wr.privacy.plan_of_study(found["epsilon 1"].study)
plan.noise_multiplier, plan.steps * plan.rounds, plan.epsilon
