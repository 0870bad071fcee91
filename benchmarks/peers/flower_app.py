"""The job as a plain Flower app: stock FedAvg, one message a site and round.

:mod:`benchmarks.peers.flower_deployment` copies this file into an app's folder, which Flower packs
and hands to its nodes; so it imports nothing of ours.
"""

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

# Flower wants an assignment of each in the module.
server = ServerApp()
client = ClientApp()


@server.main()
def run(grid: Grid, context: Context) -> None:
    """Run the rounds; append a line of JSON after each."""
    config = context.run_config
    path, sites = Path(str(config["stamps"])), int(config["sites"])
    widths = [int(text) for text in str(config["widths"]).split(",")]

    def stamp(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number:
            with path.open("a") as stream:
                stream.write(json.dumps({"round": number, "at": time.time()}) + "\n")
        return MetricRecord()

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    strategy.start(grid, _first_model(widths), num_rounds=int(config["rounds"]), evaluate_fn=stamp)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Take one step, or change the numbers without torch."""
    arrays = message.content.array_records["arrays"]
    work = _step if context.run_config["work"] == "step" else _scale
    content = RecordDict()
    content["arrays"] = work(arrays, int(context.node_config["partition-id"]))
    content["metrics"] = MetricRecord({"num-examples": 24})
    return Message(content, reply_to=message)


def _first_model(widths: list[int]) -> ArrayRecord:
    generator = np.random.default_rng(0)
    arrays = {}
    for number, (before, after) in enumerate(pairwise(widths)):
        for name, shape in (("weight", (after, before)), ("bias", (after,))):
            values = generator.standard_normal(shape, np.float32) / np.float32(before**0.5)
            arrays[f"{number}.{name}"] = Array(values)
    return ArrayRecord(arrays)


def _scale(arrays: ArrayRecord, site: int) -> ArrayRecord:
    """Change each number a little, and otherwise at each site."""
    factor = np.float32(0.999 - 0.001 * site)
    return ArrayRecord({name: Array(array.numpy() * factor) for name, array in arrays.items()})


def _step(arrays: ArrayRecord, site: int) -> ArrayRecord:
    """Take one step of SGD on 24 patients of two numbers."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(site)
    state = {n: t.requires_grad_() for n, t in arrays.to_torch_state_dict().items()}
    labels = torch.arange(24) % 2
    values = torch.randn(24, 2) + labels[:, None]
    layers = len(state) // 2
    for number in range(layers):
        values = F.linear(values, state[f"{number}.weight"], state[f"{number}.bias"])
        values = values if number == layers - 1 else F.relu(values)
    optimiser = torch.optim.SGD(state.values(), lr=0.1)
    F.cross_entropy(values, labels).backward()  # type: ignore[no-untyped-call] # torch's
    optimiser.step()
    return ArrayRecord({name: tensor.detach() for name, tensor in state.items()})
