"""The reference job as a plain Flower app, through Flower's own simulation on Ray.

Stock FedAvg and a ClientApp around the bare loop's own training; a site is evaluated in its train
message, so that a round is one message a site. Prints one line of JSON like the bare loop.

    python -m benchmarks.peers.flower_simulation MANIFEST ROUNDS INITIAL
"""

import json
import sys
import time
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.peers.bare_loop import correct, load_network, load_sites, one_round

ACTORS = 2


def main(manifest: Path, rounds: int, initial: Path) -> None:
    """Run the app on as many actors as the other engines have workers."""
    from flwr.simulation import run_simulation  # noqa: TID251 # the peer that is measured

    sites = len(load_sites(manifest))
    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(
        server_app=make_server(manifest, rounds, initial),
        client_app=make_client(manifest, initial),
        num_supernodes=sites,
        backend_config={
            "client_resources": resources,
            "init_args": {"num_cpus": ACTORS, "include_dashboard": False},
        },
    )


def make_server(manifest: Path, rounds: int, initial: Path) -> ServerApp:
    """Return a ServerApp that prints the result."""
    app = ServerApp()

    @app.main()
    def run(grid: Grid, context: Context) -> None:
        torch.set_num_threads(1)
        network, state = load_network(initial)
        stamps = []

        def stamp(number: int, arrays: ArrayRecord) -> MetricRecord:
            stamps.append(time.time())
            return MetricRecord()

        count = len(load_sites(manifest))
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
        result = strategy.start(grid, ArrayRecord(state), num_rounds=rounds, evaluate_fn=stamp)
        network.load_state_dict(result.arrays.to_torch_state_dict())
        tests = [site["test"] for site in load_sites(manifest)]
        right = sum(int(correct(network, *test)) for test in tests)
        found = {
            "first": stamps[1],
            "rounds": [after - before for before, after in pairwise(stamps)],
            "accuracy": right / sum(len(labels) for _, labels in tests),
        }
        print(json.dumps(found), flush=True)

    return app


def make_client(manifest: Path, initial: Path) -> ClientApp:
    """Return a ClientApp whose node number is its site's."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        network, sites = _warm(manifest, initial)
        site = sites[int(context.node_config["partition-id"])]
        state = message.content["arrays"].to_torch_state_dict()
        trained = one_round(network, state, [site])
        metrics = MetricRecord({"num-examples": len(site["train"][1])})
        content = RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


@lru_cache(maxsize=1)
def _warm(manifest: Path, initial: Path):
    """Return the network and the sites, loaded once a process."""
    return load_network(initial)[0], load_sites(manifest)


if __name__ == "__main__":
    # Not __main__'s own functions: Ray would send them by value, and each call would load anew.
    from benchmarks.peers.flower_simulation import main as importable_main

    importable_main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
