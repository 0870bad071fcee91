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
# # A first simulation
#
# Four hospitals want one model that marks grey and white matter in MR slices of the brain. No image
# may leave its hospital. Before anybody signs anything, a simulation on one machine shows what they
# would gain: each hospital is a folder with its own patients, and its scanner makes images that
# look a little different.
#
# The patients are virtual (one real brain template, deformed at random), and come with the
# packages: nothing is downloaded.

# %%
import wardround as wr

study = wr.load_study("brain-tissue").with_changes(
    rounds=8,
    features=[8, 16, 32],
    data={"size": [64, 64]},
    simulation={"options": {"patients": 64, "slices": 2}},
)
study

# %% [markdown]
# ## Round by round
#
# A simulation can be asked for its rounds one at a time. It stands still while we look, and ends
# when we leave the loop. Here we only want to see that it learns, so we stop after three rounds.

# %%
rounds = wr.simulate_rounds(study)
for done in rounds:
    print(f"round {done.number} of {done.of}: {done.metric} {done.value:.3f} before it")
    if done.number == 3:
        break
stopped = rounds.result.status
stopped

# %% [markdown]
# What was done is kept. `resume` goes on where the loop stopped, to the very model that an
# uninterrupted run would have had, and then does what every run does: each hospital also trains
# alone, one model is trained on all images pooled, and everything is tested on the same patients.

# %%
result = wr.resume(rounds.folder)
result

# %% [markdown]
# The sentence at the top is the verdict, and it is careful: with so few test patients most
# differences cannot be told from chance, and it says so. The report (`report.html` in the run
# folder) shows the intervals, the worst cases and much more.
#
# ## The numbers
#
# Every table is a pandas data frame. `history` has a row a round: Dice on validation patients
# rises.

# %%
history = result.history
federated = history[history.model == "federated"]
federated[["round", "value", "training_loss", "sites", "seconds"]].round(3)

# %%
metrics = result.metrics
final = metrics[(metrics["round"] == -1) & (metrics.metric == "dice") & (metrics.class_name == "")]
final.pivot_table(index="site", columns="model", values="value").round(3)

# %% [markdown]
# Each column is a model, each row a hospital's test patients. Federated and pooled are models for
# all; a `local-...` model was trained at one hospital alone.
#
# ## The model
#
# `models` holds torch networks, ready to use. `predict` prepares an image as the training did, and
# gives the answer in the image's own pixels. A hospital of the run is a site folder, with a
# manifest that names its images; we take all of them.

# %%
site = wr.open_site(result.folder / "sites" / "hospital-2")
predictions = wr.predict(result, site.manifest_path)
predictions[:4]

# %% [markdown]
# Left: a test slice of this hospital. Middle: the truth. Right: what the federated model marks
# (grey matter in grey, white matter in white).

# %%
import numpy as np
import pandas as pd
from PIL import Image

rows = pd.read_csv(site.manifest_path)
place = int(np.flatnonzero(rows["split"] == "test")[0])


def item(cell):
    file, number = cell.rsplit("#", 1)
    return np.load(file, mmap_mode="r")[int(number)]


truth, found = item(rows["mask"][place]), predictions.labels[place]
shown = np.hstack([item(rows["image.t1"][place]), truth * 127, found * 127]).astype("uint8")
Image.fromarray(shown).resize((3 * 192, 192), Image.Resampling.NEAREST)

# %%
overlap = {
    name: float(2 * ((truth == k) & (found == k)).sum() / ((truth == k).sum() + (found == k).sum()))
    for k, name in enumerate(result.study.data.classes)
    if k
}
overlap

# %% [markdown]
# The numbers above are the Dice of this one slice: 1 is a perfect match.
#
# Next: [your own data](own_data.py), [strategies compared](strategies_compared.py).
