"""The floor on two cores: the bare loop's sites in two forked processes, weights in shared memory.

The parent imports, builds the network and one optimiser, then forks; pipes say when to start and
when a mean is there. Prints one line of JSON like the bare loop, and when the first round ended.

    python -m benchmarks.peers.two_process_loop MANIFEST ROUNDS INITIAL
"""

import json
import multiprocessing
import sys
import time
from pathlib import Path

import torch

from benchmarks.peers.bare_loop import correct, load_network, load_sites, one_round

WORKERS = 2


def main(manifest: Path, rounds: int, initial: Path) -> None:
    """Run FedAvg over the manifest's sites, half of them in each process."""
    torch.set_num_threads(1)  # before a fork no thread may run
    sites = load_sites(manifest)
    network, state = load_network(initial)
    torch.optim.SGD(network.parameters(), lr=0.01)  # imports what every worker would import
    shared = {name: tensor.share_memory_() for name, tensor in state.items()}
    slots = [{n: torch.zeros_like(t).share_memory_() for n, t in state.items()} for _ in (0, 1)]
    total = sum(len(site["train"][1]) for site in sites)
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for number in range(WORKERS):
        ours, theirs = context.Pipe()
        work = (theirs, network, shared, slots[number], sites[number::WORKERS], total)
        process = context.Process(target=_work, args=work, daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    first, seconds = 0.0, []
    for _ in range(rounds):
        started = time.perf_counter()
        _tell_all(pipes, "train")
        for name, tensor in shared.items():
            torch.add(slots[0][name], slots[1][name], out=tensor)
        seconds.append(time.perf_counter() - started)
        first = first or time.time()
    right = sum(_tell_all(pipes, "test"))
    count = sum(len(site["test"][1]) for site in sites)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send("stop")
        process.join()
    print(json.dumps({"first": first, "rounds": seconds, "accuracy": right / count}))


def _tell_all(pipes, word):
    """Send every worker a word and wait for their answers."""
    for pipe in pipes:
        pipe.send(word)
    return [pipe.recv() for pipe in pipes]


def _work(pipe, network, shared, slot, sites, total):
    """Train or test these sites from the shared weights, as often as told."""
    torch.set_num_threads(1)
    share = sum(len(site["train"][1]) for site in sites) / total
    while (word := pipe.recv()) != "stop":
        if word == "train":
            for name, tensor in one_round(network, shared, sites).items():
                torch.mul(tensor, share, out=slot[name])
            pipe.send(None)
        else:
            network.load_state_dict(shared)
            pipe.send(sum(int(correct(network, *site["test"])) for site in sites))
            for site in sites:
                correct(network, *site["validation"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
