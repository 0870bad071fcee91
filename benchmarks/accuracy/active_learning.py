"""Active learning beside a random sample of the same size, with intervals, also if it loses.

A model is trained on a few labelled images, says which others to label, and is trained anew on
all of them; the random arm labels as many by lot. All arms of a seed share the first images, and
of a network the initial weights and the order of batches.

    python -m benchmarks.accuracy.active_learning --data-root DATA

The model is a linear head on 64 principal components of the unlabelled pool: its optimum is one,
so that a difference between arms is one of their images and not of a training that stopped early,
and 20 seeds take minutes. ``--model small-cnn`` trains the network that the studies of these data
name, a second a training on an idle core; pretrained features are not to be had without a network.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.support.processes import machine
from wardround.client.clinic.review.outcome import compare_repeats
from wardround.client.clinic.review.scores import (
    SCORES,
    Floats,
    check_probabilities,
    check_scores,
)
from wardround.client.clinic.review.selection import by_lot, by_score, spread_out
from wardround.common.models.networks.registry import build_network
from wardround.common.statistics.decisions.recalibration import (
    fit_temperature,
    logits_of_scores,
    temperature_sums,
    with_temperature,
)
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

KEY = b"active learning benchmark"
BATCH, LEARNING_RATE, COMMITTEE, COMPONENTS = 32, 2e-3, 2, 64

Model = Callable[[torch.Tensor], Floats]
"""From images ``(N, ...)`` to probabilities ``(N, K)``."""
Fit = Callable[["Images", Sequence[int], int, int], Model]
"""From data, labelled places, steps and a seed to a trained model."""


@dataclass(frozen=True)
class Images:
    """A data set in parts.

    Attributes:
        pool: ``(N, C, H, W)`` that may be labelled, and the labels that a reader would give.
        held_out: For the temperature.
        test: What is measured.
    """

    name: str
    classes: int
    pool: tuple[torch.Tensor, torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """What is run on a data set.

    Attributes:
        budgets: Labelled images in all, after the first ``start``.
        arms: The first is the control.
    """

    start: int
    budgets: tuple[int, ...]
    seeds: int
    steps: int
    arms: tuple[str, ...]


PLANS = {
    "pneumoniamnist": Plan(
        20, (40, 60, 80, 120, 160, 240, 320, 480), 20, 120, ("random", "entropy", "diverse")
    ),
    "ham10000": Plan(
        100, (200, 300, 400, 600), 5, 240, ("random", "entropy", "diverse", "disagreement")
    ),
}


@dataclass(frozen=True)
class Row:
    """What one arm of one seed came to at one budget."""

    data: str
    arm: str
    seed: int
    budget: int
    auroc: float
    balanced_accuracy: float


def main() -> None:
    """Run every arm, then say which beat the lot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True, type=Path)
    parser.add_argument("--data", default=",".join(PLANS), help="which data sets")
    parser.add_argument("--model", default="linear", choices=tuple(FITS))
    parser.add_argument("--seeds", type=int, help="fewer than the plan has")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="every number, as JSON lines")
    arguments = parser.parse_args()
    print(machine())
    for name in arguments.data.split(","):
        _run(name, arguments)


def _run(name: str, arguments: argparse.Namespace) -> None:
    plan = PLANS[name]
    seeds = range(arguments.seeds or plan.seeds)
    done = _read(arguments.out, name)
    missing = [seed for seed in seeds if seed not in done]
    work = partial(run_seed, name, arguments.data_root, plan, arguments.model)
    with ProcessPoolExecutor(arguments.workers) as pool:
        for seed, found in zip(missing, pool.map(work, missing), strict=True):
            done[seed] = found
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as stream:
                    rows = [asdict(row) for row in found[0]]
                    stream.write(json.dumps({"rows": rows, "seconds": found[1]}) + "\n")
    rows = [row for seed in seeds for row in done[seed][0]]
    _report(name, rows, plan, len(seeds), sum(done[seed][1] for seed in seeds))


def _read(out: Path | None, name: str) -> dict[int, tuple[list[Row], float]]:
    """Return what an earlier try has done, by seed."""
    found: dict[int, tuple[list[Row], float]] = {}
    if out is not None and out.exists():
        for line in map(json.loads, out.read_text(encoding="utf-8").splitlines()):
            rows = [Row(**row) for row in line["rows"]]
            if rows[0].data == name:
                found[rows[0].seed] = rows, line["seconds"]
    return found


def run_seed(name: str, root: Path, plan: Plan, model: str, seed: int) -> tuple[list[Row], float]:
    """Return what every arm of a seed came to, and the CPU seconds that it took."""
    torch.set_num_threads(1)
    began = process_time()
    images, fit = READERS[name](root), FITS[model]
    if model == "linear":
        images = _projected(images)
    ids = [f"{name} {place}" for place in range(len(images.pool[1]))]
    first = by_lot(ids, KEY, f"start {seed}")[: plan.start]
    rows = []
    start = fit(images, first, plan.steps, seed)
    for arm in plan.arms:
        labelled, trained = list(first), start
        for budget in plan.budgets:
            more = budget - len(labelled)
            labelled += _chosen(arm, images, trained, labelled, more, (ids, fit, plan, seed))
            trained = fit(images, labelled, plan.steps, seed)
            rows.append(Row(name, arm, seed, budget, *_measured(trained, images)))
    return rows, process_time() - began


def _chosen(
    arm: str,
    images: Images,
    trained: Model,
    labelled: Sequence[int],
    count: int,
    run: tuple[Sequence[str], Fit, Plan, int],
) -> list[int]:
    ids, fit, plan, seed = run
    rest = sorted(set(range(len(ids))) - set(labelled))
    names = [ids[place] for place in rest]
    if arm == "random":
        return [rest[at] for at in by_lot(names, KEY, f"arm {seed}")[:count]]
    size = COMMITTEE if arm == "disagreement" else 1
    others = [fit(images, labelled, plan.steps, seed + 1000 * n) for n in range(1, size)]
    members = [_calibrated(one, images, rest) for one in (trained, *others)]
    probabilities = np.stack(members)
    check_probabilities(probabilities)
    scores = SCORES["disagreement" if size > 1 else "entropy"](probabilities, False)
    check_scores(scores)
    order = by_score(scores, names, KEY)
    if arm == "diverse":
        order = spread_out(np.sqrt(probabilities.mean(axis=0)), order, count)
    return [rest[at] for at in order[:count]]


def _calibrated(trained: Model, images: Images, places: Sequence[int]) -> Floats:
    """Return probabilities of the pool with the temperature that the held-out images ask for."""
    pixels, labels = images.held_out
    logits = logits_of_scores(trained(pixels))
    truth = np.eye(images.classes, dtype=bool)[labels.numpy()]
    fit = fit_temperature(
        lambda numbers: temperature_sums(logits, truth, float(numbers[0])),
        truth.sum(axis=0).astype(np.float64),
    )
    said = trained(images.pool[0][list(places)])
    return with_temperature(said, fit.values[0]) if fit.is_usable else said


def fit_network(images: Images, labelled: Sequence[int], steps: int, seed: int) -> Model:
    """Return the small CNN, trained from its seed's initial weights."""
    network = build_network(_study(images), seed).train()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    pixels, labels = (part[list(labelled)] for part in images.pool)
    for _ in range(steps):
        places = torch.randint(len(labels), (BATCH,), generator=generator)
        loss = torch.nn.functional.cross_entropy(network(pixels[places]), labels[places])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()

    def say(pixels: torch.Tensor) -> Floats:
        with torch.inference_mode():
            parts = [network(part).double().softmax(1) for part in pixels.split(1024)]
        return torch.cat(parts).numpy()

    return say


def fit_head(images: Images, labelled: Sequence[int], steps: int, seed: int) -> Model:
    """Return a logistic regression; of a committee's further members on images drawn again."""
    from sklearn.linear_model import LogisticRegression

    places = np.array(labelled)
    if seed >= 1000:
        places = np.random.default_rng(seed).choice(places, len(places))
    features, labels = (part[places].numpy() for part in images.pool)
    head = LogisticRegression(C=0.1, max_iter=10 * steps).fit(features, labels)

    def say(features: torch.Tensor) -> Floats:
        said = np.zeros((len(features), images.classes))
        said[:, head.classes_] = head.predict_proba(features.numpy())
        return said

    return say


def _projected(images: Images) -> Images:
    """Return the principal components of the pool, each of variance 1; no label is looked at."""
    flat = images.pool[0].flatten(1)
    mean = flat.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, scale, axes = torch.pca_lowrank(flat, COMPONENTS, center=True, niter=4)
    scale = scale / len(flat) ** 0.5

    def project(part: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = part
        return ((pixels.flatten(1) - mean) @ axes / scale).double(), labels

    parts = (project(one) for one in (images.pool, images.held_out, images.test))
    return Images(images.name, images.classes, *parts)


FITS: dict[str, Fit] = {"linear": fit_head, "small-cnn": fit_network}


def _measured(trained: Model, images: Images) -> tuple[float, float]:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    pixels, labels = images.test
    said, truth = trained(pixels), labels.numpy()
    if images.classes == 2:
        auroc = roc_auc_score(truth, said[:, 1])
    else:
        auroc = roc_auc_score(truth, said, multi_class="ovr", average="macro")
    return float(auroc), float(balanced_accuracy_score(truth, said.argmax(axis=1)))


def _study(images: Images) -> Study:
    size = list(images.pool[0].shape[2:])
    return parse_study(
        {
            "study": {"name": "active", "task": "classification"},
            "data": {
                "classes": [f"c{n}" for n in range(images.classes)],
                "size": size,
                "colour": images.pool[0].shape[1] == 3,
            },
            "model": {"network": "small-cnn", "features": [16, 32], "normalisation": "group"},
            "simulation": {"data": "pneumoniamnist"},
        }
    )


def _report(name: str, rows: Sequence[Row], plan: Plan, seeds: int, seconds: float) -> None:
    metric = "auroc" if name == "pneumoniamnist" else "balanced_accuracy"
    print(f"\n{name}: {metric}, {seeds} seeds, {seconds / 60:.1f} CPU minutes")
    table = _table(rows, metric)
    print("labelled  " + "  ".join(f"{arm:>12s}" for arm in plan.arms))
    for budget in plan.budgets:
        means = [np.mean([table[arm, seed, budget] for seed in range(seeds)]) for arm in plan.arms]
        print(f"{budget:8d}  " + "  ".join(f"{mean:12.4f}" for mean in means))
    for arm in plan.arms[1:]:
        won = 0
        for budget in plan.budgets:
            chosen = [table[arm, seed, budget] for seed in range(seeds)]
            drawn = [table["random", seed, budget] for seed in range(seeds)]
            found = compare_repeats(chosen, drawn, metric)
            won += found.difference.value >= 0
            low, high = found.difference.low, found.difference.high
            print(
                f"  {arm} less random at {budget}: {found.difference.value:+.4f} "
                f"({low:+.4f} to {high:+.4f}), {found.verdict}"
            )
        over = [
            [np.mean([table[one, seed, b] for b in plan.budgets]) for seed in range(seeds)]
            for one in (arm, "random")
        ]
        whole = compare_repeats([*map(float, over[0])], [*map(float, over[1])], f"mean {metric}")
        print(f"  {whole.in_words(arm)} It was at least level at {won} of {len(plan.budgets)}.")


def _table(rows: Sequence[Row], metric: str) -> dict[tuple[str, int, int], float]:
    return {(row.arm, row.seed, row.budget): getattr(row, metric) for row in rows}


def _pneumonia(root: Path) -> Images:
    with np.load(root / "pneumoniamnist" / "pneumoniamnist_union.npz") as held:
        parts = [
            (_grey(held[f"{part}_images"]), torch.from_numpy(held[f"{part}_labels"][:, 0]).long())
            for part in ("train", "val", "test")
        ]
    return Images("pneumoniamnist", 2, *parts)


def _ham(root: Path) -> Images:
    """Return HAM10000 at 32 pixels: 30 % for test and 10 % held out, by a hash of the lesion."""
    import csv

    import PIL.Image

    folder = root / "ham10000_sites_200x150"
    with (folder / "selection.csv").open(newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    names = sorted({row["dx"] for row in listed})
    order = by_lot([row["lesion_id"] for row in listed], KEY, "split")
    pixels = np.stack(
        [
            np.asarray(
                PIL.Image.open(folder / "images" / f"{listed[at]['image_id']}.jpg")
                .convert("RGB")
                .resize((32, 32), PIL.Image.Resampling.BILINEAR)
            )
            for at in order
        ]
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.tensor([names.index(listed[at]["dx"]) for at in order])
    tested, held = len(order) * 3 // 10, len(order) * 4 // 10
    return Images(
        "ham10000",
        len(names),
        (images[held:], labels[held:]),
        (images[tested:held], labels[tested:held]),
        (images[:tested], labels[:tested]),
    )


def _grey(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).float().unsqueeze(1) / 127.5 - 1


READERS = {"pneumoniamnist": _pneumonia, "ham10000": _ham}

if __name__ == "__main__":
    main()
