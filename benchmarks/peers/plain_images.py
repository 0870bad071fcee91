"""The floor for pictures in files: FedAvg as one would write it by hand, in one process and thread.

Reads each JPEG once with Pillow, resizes it, takes out the lamp's tint as the study's preset does,
and keeps the array. Prints one line of JSON: the accuracy over the sites' test images.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.bare_loop import correct

BATCH = 32


def main(manifest: Path, rounds: int, size: int) -> None:
    """Run FedAvg over the manifest's sites."""
    torch.set_num_threads(1)
    sites, classes = load_sites(manifest, size)
    network = build_network(size, classes)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(rounds):
        state = one_round(network, state, sites)
    network.load_state_dict(state)
    for site in sites:
        correct(network, *site["validation"])
    right = sum(int(correct(network, *site["test"])) for site in sites)
    total = sum(len(site["test"][1]) for site in sites)
    print(json.dumps({"accuracy": right / total}))


def load_sites(manifest: Path, size: int):
    """Return each site's images and labels, by split, and the number of classes."""
    lines = list(csv.DictReader(manifest.open()))
    names = sorted({line["label"] for line in lines})
    rows = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for line in lines:
        images, labels = rows[line["site"]][line["split"]]
        images.append(read(manifest.parent / line["image"], size))
        labels.append(names.index(line["label"]))
    return [
        {
            split: (torch.from_numpy(np.stack(images)), torch.tensor(labels))
            for split, (images, labels) in parts.items()
        }
        for parts in rows.values()
    ], len(names)


def read(path: Path, size: int):
    """Return a picture ``(3, size, size)`` in -1 .. 1, its mean colour grey."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    image = np.asarray(small, dtype=np.float32).transpose(2, 0, 1)
    means = image.mean(axis=(1, 2), keepdims=True)
    image = image * (means.mean() / np.maximum(means, 1e-6)) / np.float32(255)
    return np.clip(image, 0, 1) * 2 - 1


def build_network(size: int, classes: int):
    """Return the study's small network, of torch's own parts."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(8, 16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, classes),
    )  # fmt: skip


def one_round(network, state, sites):
    """Evaluate, then train, each site from the global state; return the weighted mean."""
    mean = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    total = sum(len(site["train"][1]) for site in sites)
    for site in sites:
        network.load_state_dict(state)
        correct(network, *site["validation"])
        x, y = site["train"]
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        network.train()
        for index in torch.randperm(len(y)).split(BATCH):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(network(x[index]), y[index]).backward()
            optimiser.step()
        for name, tensor in network.state_dict().items():
            mean[name].add_(tensor, alpha=len(y) / total)
    return mean


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
