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
# # Your own data
#
# Images as arrays, a label each, whose they are, and which hospital they come from: that is all a
# simulation needs. This notebook makes 240 small pictures itself, half of them with a bright spot,
# in three hospitals. Put your own arrays in their place.

# %%
import numpy as np
import pandas as pd

import wardround as wr

draw = np.random.default_rng(1)
patients = np.repeat([f"P{number:03d}" for number in range(120)], 2)  # two pictures each
hospitals = np.repeat(draw.choice(["north", "south", "west"], 120, p=[0.5, 0.3, 0.2]), 2)
labels = np.repeat(draw.choice(["clear", "spot"], 120), 2)
images = draw.normal(0.4, 0.12, (240, 24, 24)).astype("float32")  # grey values from 0 to 1
for number in np.flatnonzero(labels == "spot"):
    row, column = draw.integers(2, 14, 2)
    images[number, row : row + 7, column : column + 7] += 0.3
images.shape, images.dtype, np.unique(labels, return_counts=True)

# %% [markdown]
# ## From arrays to hospitals
#
# `from_arrays` looks at everything once: lengths, shapes, values that are not finite, labels that
# are missing, a patient in two hospitals. It writes the arrays and a manifest into a folder, where
# the runs find them again.

# %%
data = wr.data.from_arrays(
    "spots", images, labels, patients=patients, sites=hospitals, replace=True
)
data

# %% [markdown]
# What is wrong is said with what to do. Labels of another length, for example:

# %%
try:
    wr.data.from_arrays("spots", images, labels[:-1], patients=patients)
except wr.DataError as error:
    print(error)

# %% [markdown]
# Who the patients are decides who is trained on and who is tested on. If you do not say it, each
# image is taken for a patient of its own, and a warning says so, because pictures of one patient on
# both sides make every model look better than it is.

# %%
import warnings

with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    wr.data.from_arrays("spots-without-patients", images, labels, sites=hospitals, replace=True)
print(*(warning.message for warning in warned), sep="\n")

# %% [markdown]
# ## A study of it
#
# The data knows its classes, sizes and hospitals. What is left to say are the choices of the
# training; each key of the study file is a keyword.

# %%
study = data.study(
    "bright spots",
    rounds=10,
    local_epochs=3,
    optimiser="sgd",
    learning_rate=0.05,
    momentum=0.9,
    features=[8, 16],
    batch_size=8,
    test_fraction=0.4,
)
study

# %%
result = wr.simulate(study)
result

# %%
pd.pivot_table(
    result.split[result.split.class_name != ""],
    index="site",
    columns=["split", "class_name"],
    values="patients",
    sort=False,
)

# %% [markdown]
# ## New pictures
#
# A model is asked about arrays, tensors or files. It knows what its training images looked like,
# and refuses what it was not made for; here somebody forgot that the values go from 0 to 1.

# %%
predictions = wr.predict(result, images)
predictions

# %%
spot = pd.Series(predictions.probabilities[:, 1], name="probability of a spot")
means = spot.groupby(labels).mean()
means

# %%
try:
    wr.predict(result, images[0] * 255)
except wr.DataError as error:
    print(str(error)[:160], "...")

# %% [markdown]
# ## A table instead of pictures
#
# A data frame goes the same way: name the columns of label, patient and hospital, and the others
# are what is learnt from.

# %%
frame = pd.DataFrame(
    {
        "id": [f"P{number:03d}" for number in range(150)],
        "hospital": draw.choice(["north", "south"], 150),
        "age": draw.normal(60, 12, 150).round(),
        "smoker": draw.choice(["yes", "no"], 150),
    }
)
risk = (frame.age - 60) / 12 + (frame.smoker == "yes") * 1.5 - 0.75
frame["outcome"] = np.where(draw.normal(risk, 0.7) > 0, "ill", "well")
table = wr.data.from_table(
    "patients", frame, "outcome", patient="id", site="hospital", replace=True
)
table

# %%
clinical = wr.simulate(
    table.study("risk", features=[], rounds=5, learning_rate=0.05, local_epochs=4, batch_size=16),
    compare=False,
)
round(clinical.value(), 3)

# %% [markdown]
# Two columns suffice here for an AUROC well above the 0.5 of guessing.
#
# The same manifest is what a real hospital's site folder holds, so a study that works here can be
# sent to hospitals as it is: `study.save("study.toml")`.
