"""The server's peak memory, in models: a 100 MB model and 4, 16 and 64 sites that answer.

The whole server app runs in a process of its own over a grid whose sites make each answer when it
is pulled, so that only the server's own memory counts: its peak minus what it held just before the
model was built, divided by the model's size. Linux only.

    python -m benchmarks.server_memory [--megabytes 100] [--sites 4,16,64] [--rules fedavg,int8]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict

import wardround
from wardround.common.flower.messages.content import configs_of
from wardround.common.flower.site_grid import MessageNumbers, SiteGrid, begin_local_run, rebuild
from wardround.common.messages.instructions import DESCRIBE, TRAIN
from wardround.common.messages.replies import (
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    pack_evaluation,
    pack_site_info,
    pack_update,
)
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.array_records import encode_npy
from wardround.common.parameters.compression import CompressionOptions, compressed_schema
from wardround.common.parameters.schema import Schema, schema
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.engines.in_process import site_contexts
from wardround.simulations.experiment.federation import run_federation

LAYERS = 7
ROUNDS = 2
TARGET = 3.0
RULES: dict[str, dict[str, object]] = {
    "fedavg": {},
    "fedavgm": {"federation.strategy": "fedavgm"},
    "norm-bounded-mean": {
        "federation.strategy": "norm-bounded-mean",
        "federation.options.norm_bound": 1.0,
    },
    "int8": {"federation.compression": "int8"},
    "privacy-of-sites": {"privacy.mode": "site", "privacy.noise_multiplier": 1.0},
    "coordinate-median": {"federation.aggregation": "coordinate-median"},
}
DEFAULT = "fedavg,norm-bounded-mean,int8"  # those that are to stay below the target


@dataclass(frozen=True)
class Measured:
    """The server's memory in one run.

    Attributes:
        model: Size of the model's numbers.
        peak: What the process held at most, beyond what it held before the model was built.
    """

    model: int
    peak: int

    @property
    def models(self) -> float:
        """The peak in models."""
        return self.peak / self.model


class AnsweringGrid(SiteGrid):
    """Sites that answer every order at once with a model of the right shapes.

    What is sent is not kept: a real transport hands it on to other machines.
    """

    def __init__(self, study: Study, sites: int) -> None:
        folders = [Path(f"site-{number:03d}") for number in range(sites)]
        super().__init__(begin_local_run(1))
        contexts = site_contexts(folders, "", "cpu", 1)
        self._numbers = MessageNumbers()
        self._study = study
        self._names = {node: f"site-{n:03d}" for n, node in enumerate(contexts)}
        self._templates = _templates(study)
        self._waiting: dict[str, Message] = {}
        self._asked = "", 0
        self.memory_before = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""
        return list(self._names)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Remember who was asked what."""
        ids = []
        for message in messages:
            message_id = self._numbers.give(message)
            ids.append(message_id)
            instruction = configs_of(message.content)["instruction"]
            self._asked = str(instruction.get("run", "")), int(str(instruction.get("round", 0)))
            self._waiting[message_id] = rebuild(message.metadata, RecordDict(), None)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer the first of these."""
        message = self._waiting.pop(next(iter(message_ids)))
        return [Message(self._reply(message), reply_to=message)]

    def _reply(self, message: Message) -> RecordDict:
        site, digest = self._names[message.metadata.dst_node_id], self._study.digest
        kind = message.metadata.message_type
        if kind == DESCRIBE:
            content = pack_site_info(SiteInfo(site, wardround.__version__, digest, 10))
            self.memory_before = reset_peak()  # the model is built when all have answered
            return content
        run, number = self._asked
        if kind != TRAIN:
            evaluation = SiteEvaluation(site, digest, number, None, 0.0, run)
            return pack_evaluation(evaluation)
        content = pack_update(SiteUpdate(site, digest, number, 0, {}, 10, 1, 0.1, 0.2, run=run))
        content["model"] = ArrayRecord(
            {
                spec.name: Array(spec.dtype, spec.shape, "numpy.ndarray", bytes(template))
                for spec, template in self._templates
            }
        )
        return content


def main() -> None:
    """Measure each rule with each number of sites in a process of its own; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--sites", default="4,16,64")
    parser.add_argument("--rules", default=DEFAULT, help=f"of {', '.join(RULES)}")
    parser.add_argument("--measure", action="store_true", help="one rule, in this process, as JSON")
    arguments = parser.parse_args()
    counts = [int(text) for text in arguments.sites.split(",")]
    rules = arguments.rules.split(",")
    if arguments.measure:
        found = measure(rules[0], counts[0], arguments.megabytes)
        print(json.dumps({"model": found.model, "peak": found.peak}))
        return
    print("| rule | " + " | ".join(f"{count} sites" for count in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for rule in rules:
        values = [measure_apart(rule, count, arguments.megabytes).models for count in counts]
        print(f"| {rule} | " + " | ".join(f"{value:.2f}" for value in values) + " |", flush=True)
    print(f"in models of {arguments.megabytes:g} MB; streaming rules should stay below {TARGET:g}")


def measure_apart(rule: str, sites: int, megabytes: float) -> Measured:
    """Measure in a new process."""
    command = [sys.executable, "-m", "benchmarks.server_memory", "--measure", "--rules", rule]
    command += ["--sites", str(sites), "--megabytes", str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{rule} with {sites} sites failed: {done.stderr[-1000:]}"
        raise RuntimeError(message)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(rule: str, sites: int, megabytes: float) -> Measured:
    """Run the server for some rounds in this process and return its peak."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        # A first run on a tiny model does the late imports.
        _serve(_study(rule, 4), 4, Path(folder) / "first")
        study = _study(rule, round((megabytes * 1e6 / 4 / LAYERS) ** 0.5))
        grid = _serve(study, sites, Path(folder) / "run")
        peak = _memory("VmHWM") - grid.memory_before
    return Measured(sum(spec.byte_count for spec in _schema(study)), peak)


def reset_peak() -> int:
    """Forget the process's peak memory so far; return what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _serve(study: Study, sites: int, folder: Path) -> AnsweringGrid:
    grid = AnsweringGrid(study, sites)
    run_federation(grid, study, folder)
    return grid


def _study(rule: str, width: int) -> Study:
    return with_changes(
        parse_study(
            {
                "study": {"name": "server-memory", "task": "classification"},
                "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "age"}]},
                "model": {"network": "mlp", "features": [width] * (LAYERS + 1)},
                "federation": {"rounds": ROUNDS},
                "evaluation": {"keep": "last"},
            }
        ),
        RULES[rule],
    )


def _schema(study: Study) -> Schema:
    """Return the network's schema without its numbers."""
    with torch.device("meta"):
        return schema(build_network(study, 0))


def _templates(study: Study) -> list[tuple[object, bytearray]]:
    """Return what a site sends, one copy a shape."""
    expected = _schema(study)
    if study.federation.compression != "none":
        expected = compressed_schema(expected, study.federation.compression, CompressionOptions())
    made: dict[tuple[object, str], bytearray] = {}
    for spec in expected:
        key = (spec.shape, spec.dtype)
        made[key] = made.get(key) or bytearray(encode_npy(np.ones(spec.shape, spec.dtype)))
    return [(spec, made[spec.shape, spec.dtype]) for spec in expected]


def _memory(field: str) -> int:
    """Return a field of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    message = f"/proc/self/status has no {field}: this needs Linux"
    raise RuntimeError(message)


if __name__ == "__main__":
    main()
