"""What masks cost: seconds at a site and at the server, bytes; beside Flower's and declearn's.

``python -m benchmarks.load.secure_aggregation`` goes through the protocol in one process, for some
sizes, sites and drop-outs. ``--round`` measures a round of five sites between real processes,
masked and plain. Two sites of each roster are measured; the others send a vector of the same size,
so the sum is worthless here and the work is not (that sums are exact, tests say). Seconds are the
processor's, of one core, so that what else a machine does counts little.

Flower's SecAgg+ and declearn's masks are their own code on the same numbers, without their
messages: what a site does to its update. declearn is measured where it can be imported
(``pip install --no-deps --target FOLDER declearn gmpy2 fire termcolor msgpack`` and PYTHONPATH).
"""

import argparse
import csv
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.privacy.secure_aggregation.context import Configuration, Context
from wardround.common.privacy.secure_aggregation.fixed_point import MOST_VALUE_BITS, Grid
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.messages import MaskedNotice, hash_of_names, sign
from wardround.common.privacy.secure_aggregation.server import ServerRound
from wardround.common.privacy.secure_aggregation.site import advertise, agree, mask, share, unmask
from wardround.common.privacy.secure_aggregation.site_state import Party, SiteRound
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.experiment.environment import describe_environment
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.local_federation.run import TryRequest, try_federation
from wardround.simulations.run_files.events import nobody

# declearn's ``encrypt_numpy_array`` takes seconds for 0.1 M numbers: it is given a tenth.
SIZES, ROSTERS, DROPPED = (1_000_000, 25_000_000), (3, 10, 30), (0.0, 0.2)
MEASURED = 2  # sites of a roster
ROUND_SITES, ROUNDS, WIDTHS, COVARIATES = 5, 6, (1000, 890), 100
_FLOWER_RANGE, _FLOWER_MODULUS = 1 << 22, 1 << 32  # the defaults of its workflow


@dataclass
class Attempt:
    """One attempt at one round, with the time that each part of it takes.

    Attributes:
        seconds: By site; the server's under "server".
        up: Bytes that the first site sends; down: that it is sent, beside the model.
    """

    length: int
    count: int
    dropped: float
    seconds: Counter[str] = field(default_factory=Counter)
    up: int = 0
    down: int = 0

    def __post_init__(self) -> None:
        self.names = [f"site-{index:02d}" for index in range(self.count)]
        keys = {name: Ed25519PrivateKey.generate() for name in self.names}
        known = {name: key.public_key() for name, key in keys.items()}
        self.parties = {name: Party(name, keys[name], known) for name in self.names}
        self.there = self.names[: self.count - round(self.dropped * self.count)]
        grid = Grid(16.0, MOST_VALUE_BITS, 100)
        self.configuration = Configuration(self.length, grid, bytes(32))
        context = Context("a" * 64, "b" * 32, 1, 0, self.configuration.digest, bytes(32))
        self.states = {name: SiteRound.begin(context) for name in self.names}
        self.server = ServerRound(context, self.configuration, known)
        numbers = np.random.default_rng(0).integers(-(2**40), 2**40, self.length)
        self.words = grid.words_of(numbers)

    @contextmanager
    def timed(self, who: str) -> Iterator[None]:
        """Count the processor's seconds of what is done inside."""
        started = time.process_time()
        yield
        self.seconds[who] += time.process_time() - started

    def run(self) -> "Attempt":
        """Go through all stages."""
        for name in self.names:
            with self.timed(name):
                said = advertise(self.states[name], self.parties[name])
            self._take(name, self.server.take_advertisement, said)
        with self.timed("server"):
            roster = self.server.close_roster()
        for name in self.names:
            state, party = self.states[name], self.parties[name]
            with self.timed(name):
                self.states[name], said = share(state, party, roster, self.configuration)
            self._take(name, self.server.take_shares, said)
        with self.timed("server"):
            delivered = self.server.close_shares()
        for name in self.there:
            self._mask(name, roster, delivered[name])
        self.up += self.words.nbytes
        with self.timed("server"):
            named = self.server.close_masked()
        self._finish(named)
        self.down += len(roster) + len(delivered[self.names[0]]) + len(named)
        return self

    def _take(self, name: str, take: Callable[[bytes], None], said: bytes) -> None:
        with self.timed("server"):
            take(said)
        self.up += len(said) * (name == self.names[0])

    def _mask(self, name: str, roster: bytes, delivered: bytes) -> None:
        state, party = self.states[name], self.parties[name]
        if name in self.names[:MEASURED]:
            with self.timed(name):
                self.states[name], notice, vector = mask(state, party, delivered, self.words)
        else:
            notice, vector = self._stand_in(name, roster, delivered)
        with self.timed("server"):
            self.server.take_masked(notice, vector)

    def _stand_in(self, name: str, roster: bytes, delivered: bytes) -> tuple[bytes, Words]:
        """Return a vector of the right size, as a site signs it, without the work of masking."""
        digest = hashlib.sha256(self.words.tobytes()).digest()
        senders = hash_of_names(tuple(self.names))
        notice = MaskedNotice(hashlib.sha256(roster).digest(), name, senders, digest)
        self.states[name] = replace(self.states[name], delivered=delivered, update=digest)
        return sign(notice, self.parties[name].key), self.words

    def _finish(self, named: bytes) -> None:
        """Agree and unmask."""
        for name in self.there:
            with self.timed(name):
                self.states[name], said = agree(self.states[name], self.parties[name], named)
            self._take(name, self.server.take_agreement, said)
        with self.timed("server"):
            agreed = self.server.close_agreements()
        for name in self.there:
            with self.timed(name):
                self.states[name], said = unmask(self.states[name], self.parties[name], agreed)
            self._take(name, self.server.take_unmasking, said)
        with self.timed("server"):
            self.server.unmask()


def flower_seconds(length: int, count: int) -> float:
    """Return how long one site of Flower's SecAgg+ quantises and masks its update."""
    from flwr.common.secure_aggregation.quantization import quantize  # noqa: TID251 # beside ours
    from flwr.common.secure_aggregation.secaggplus_utils import (  # noqa: TID251 # beside ours
        pseudo_rand_gen,
    )

    update = np.random.default_rng(0).normal(size=length).astype(np.float32)
    started = time.process_time()
    (total,) = quantize([update], 8.0, _FLOWER_RANGE)
    for seed in range(count):  # its own mask, and one with each neighbour
        (drawn,) = pseudo_rand_gen(seed.to_bytes(32, "big"), _FLOWER_MODULUS, [(length,)])
        total = (total + drawn) % _FLOWER_MODULUS
    return time.process_time() - started


def declearn_seconds(length: int, count: int) -> float | None:
    """Return how long one site of declearn quantises and masks its update; None without it."""
    try:
        from declearn.secagg.masking import (  # type: ignore[import-not-found] # not a dependency
            MaskingEncrypter,
        )
    except ImportError:
        return None
    update = np.random.default_rng(0).normal(size=length).astype(np.float32)
    started = time.process_time()
    others = list(range(1, count))
    MaskingEncrypter(others[::2], others[1::2], 64, 16.0).encrypt_numpy_array(update)
    return time.process_time() - started


def ours_seconds(length: int, count: int) -> float:
    """Return how long one of our sites codes and masks the same update, its hash included."""
    attempt = Attempt(length, count, 0.0)
    update = np.random.default_rng(0).normal(size=length)
    started = time.process_time()
    attempt.words = attempt.configuration.grid.encode(update)
    coded = time.process_time() - started
    attempt.run()
    return coded + attempt.seconds[attempt.names[0]]


def print_costs(sizes: Sequence[int], rosters: Sequence[int]) -> None:
    """Print a row a size, a roster and a share of drop-outs."""
    print("| numbers | sites | dropped | CPU s at a site | CPU s at the server | MB up | kB down |")
    print("|---|---|---|---|---|---|---|")
    for length in sizes:
        for count in rosters:
            for share_gone in DROPPED:
                dropped = 0.0 if count == 3 else share_gone  # of three nobody may
                if count == 3 and share_gone:
                    continue
                one = Attempt(length, count, dropped).run()
                site = max(one.seconds[name] for name in one.names[:MEASURED])
                cells = (
                    f"{length / 1e6:g} M", count, f"{dropped:.0%}", f"{site:.2f}",
                    f"{one.seconds['server']:.2f}", f"{one.up / 1e6:.2f}", f"{one.down / 1e3:.1f}",
                )  # fmt: skip
                print("|", " | ".join(map(str, cells)), "|", flush=True)


def print_peers(length: int, rosters: Sequence[int]) -> None:
    """Print what a site does to its update, here and in two other programs."""
    print(
        "| numbers | sites | wardround, CPU s | Flower SecAgg+, CPU s | declearn (a tenth), CPU s |"
    )
    print("|---|---|---|---|---|")
    for count in rosters:
        theirs = declearn_seconds(length // 10, count)
        last = "not installed" if theirs is None else f"{theirs:.2f}"
        ours, flower = ours_seconds(length, count), flower_seconds(length, count)
        print(f"| {length / 1e6:g} M | {count} | {ours:.2f} | {flower:.2f} | {last} |", flush=True)


def print_rounds() -> None:
    """Print a round of five sites between real processes, masked and plain."""
    seconds: dict[bool, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        for is_masked in (False, True):
            study = round_study(Path(folder), is_masked)
            tried = try_federation(TryRequest(study, Path(folder) / f"{is_masked}"), nobody)
            # The first round loads what a site needs.
            history = [one.seconds for one in tried.details.history if one.sites][1:]
            seconds[is_masked] = history
    plain, masked = (statistics.median(seconds[key]) for key in (False, True))
    print(f"a plain round {plain:.2f} s, a masked one {masked:.2f} s: {masked / plain:.2f} times")


def round_study(folder: Path, is_masked: bool) -> Study:
    """Return a study of 1 M numbers and five sites."""
    path, drawn = folder / "manifest.csv", np.random.default_rng(0)
    names = [f"c{number}" for number in range(COVARIATES)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", *names])
        for patient in range(200 * ROUND_SITES):
            values = drawn.normal(size=COVARIATES).round(3)
            split = ("train", "train", "train", "validation", "test")[patient % 5]
            site = f"site-{patient // 5 % ROUND_SITES}"
            writer.writerow([f"p{patient}", patient % 2, split, site, *values])
    return parse_study(
        {
            "study": {"name": "masked" if is_masked else "plain", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": name, "mean": 0.0, "scale": 1.0} for name in names],
            },
            "model": {"network": "mlp", "features": list(WIDTHS)},
            "training": {"optimiser": "sgd", "learning_rate": 0.01, "local_steps": 50},
            "federation": {
                "rounds": ROUNDS,
                "minimum_sites": ROUND_SITES,
                "secure_aggregation": is_masked,
            },
            "evaluation": {"keep": "last"},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "compare": False,
                "options": {"manifest": str(path)},
            },
        }
    )


def main() -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", action="store_true", help="a round between real processes")
    parser.add_argument("--peers", action="store_true", help="beside Flower's and declearn's masks")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of a model")
    parser.add_argument("--sites", type=int, nargs="*", default=ROSTERS, help="sites of a roster")
    options = parser.parse_args()
    print(describe_environment(Machine()), f"load {os.getloadavg()[0]:.1f}")
    if options.round:
        print_rounds()
    elif options.peers:
        print_peers(options.sizes[0], options.sites)
    else:
        print_costs(options.sizes, options.sites)
    return 0


if __name__ == "__main__":
    sys.exit(main())
