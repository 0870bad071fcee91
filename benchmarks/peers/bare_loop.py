"""The floor: the reference job in plain torch, with nothing around it. One process, one thread.

Prints one line of JSON: seconds of each round, final accuracy over the sites' test images.
"""

import csv
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BATCH = 32


def main(manifest: Path, rounds: int, initial: Path) -> None:
    """Run FedAvg over the manifest's sites, as the reference study does."""
    torch.set_num_threads(1)
    sites = load_sites(manifest)
    network, state = load_network(initial)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        state = one_round(network, state, sites)
        seconds.append(time.perf_counter() - started)
    network.load_state_dict(state)
    right = sum(int(correct(network, *site["test"])) for site in sites)
    total = sum(len(site["test"][1]) for site in sites)
    for site in sites:
        correct(network, *site["validation"])
    print(json.dumps({"rounds": seconds, "accuracy": right / total}))


def load_sites(manifest: Path):
    """Return each site's images and labels, by split."""
    images = torch.from_numpy(np.load(manifest.parent / "images.npy"))[:, None]
    labels = torch.from_numpy(np.load(manifest.parent / "labels.npy"))
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    with manifest.open() as stream:
        for number, line in enumerate(csv.DictReader(stream)):
            rows[line["site"]][line["split"]].append(number)
    return [
        {split: (images[index], labels[index]) for split, index in parts.items()}
        for parts in rows.values()
    ]


def load_network(initial: Path):
    """Return the network and a copy of its numbers, which are the file's."""
    from safetensors.torch import load_file

    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip
    weights = [tensor for _, tensor in sorted(load_file(initial).items())]
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    return network, {name: tensor.clone() for name, tensor in network.state_dict().items()}


def one_round(network, state, sites):
    """Evaluate, then train, each site from the global state; return the weighted mean."""
    mean = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    total = sum(len(site["train"][1]) for site in sites)
    for site in sites:
        network.load_state_dict(state)
        correct(network, *site["validation"])
        x, y = site["train"]
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
        network.train()
        for index in torch.randperm(len(y)).split(BATCH):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(network(x[index]), y[index]).backward()
            optimiser.step()
        for name, tensor in network.state_dict().items():
            mean[name].add_(tensor, alpha=len(y) / total)
    return mean


def correct(network, x, y):
    """Count the right answers."""
    network.eval()
    with torch.inference_mode():
        pairs = zip(x.split(256), y.split(256), strict=True)
        return sum((network(a).argmax(1) == b).sum() for a, b in pairs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
