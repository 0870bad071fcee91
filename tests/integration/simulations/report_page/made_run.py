"""A run folder with invented numbers, and the page of its report as a parser reads it."""

import math
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from wardround.common.files.tables import write_table
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.report.samples import Samples
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    MetricRow,
    RunFacts,
    SplitRow,
    TrafficRow,
    local_model,
    write_facts,
)

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
SKIN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
TISSUE = ("background", "grey matter", "white matter")
HOME_PAGE = "https://example.org/data"


def make_run(
    folder: Path, task: str = "classification", status: str = "finished", rounds_done: int = 8
) -> Path:
    """Write a run folder with invented numbers; unfinished ones hold rounds and nothing else."""
    folder.mkdir(parents=True)
    study = made_study(task)
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    finished = status == "finished"
    rows = round_rows(study, rounds_done) + (final_rows(study) if finished else [])
    write_table(folder / "metrics.csv", rows, MetricRow)
    write_table(folder / "split.csv", split_rows(study), SplitRow)
    write_table(folder / "traffic.csv", traffic_rows(rounds_done), TrafficRow)
    write_facts(folder, made_facts(study, status, finished))
    if finished:
        np.savez_compressed(folder / "samples.npz", **asdict(made_samples(study)))
    return folder


def made_study(task: str) -> Study:
    skin = task == "classification"
    return parse_study(
        {
            "study": {
                "name": "skin-lesions" if skin else "brain-tissue",
                "task": task,
                "description": "Seven kinds of skin lesion, four hospitals." if skin else "",
            },
            "data": {"classes": SKIN if skin else TISSUE, "size": [64, 64], "colour": skin},
            "model": {"network": "small-cnn" if skin else "unet"},
            "federation": {"rounds": 8},
        }
    )


def round_rows(study: Study, rounds: int) -> list[MetricRow]:
    rows = []
    for site_index, site in enumerate((*SITES, ALL_SITES)):
        for round_ in range(rounds + 1):
            level = 0.9 - 0.35 * math.exp(-round_ / 2.5) - 0.02 * site_index * (site != ALL_SITES)
            level += 0.01 * math.sin(7 * round_ + site_index)
            for metric, value in ((study.metric, level), ("loss", 1.4 - level)):
                rows.append(MetricRow(FEDERATED, round_, site, "validation", metric, "", value, 30))
    for round_ in range(rounds + 1):
        level = 0.91 - 0.3 * math.exp(-round_ / 2)
        rows.append(
            MetricRow(POOLED, round_, ALL_SITES, "validation", study.metric, "", level, 120)
        )
    return rows


def final_rows(study: Study) -> list[MetricRow]:
    own, federated, pooled = (0.80, 0.88, 0.905, 0.86), (0.91, 0.90, 0.86, 0.915), 0.925
    error = 0.0 if study.metric == "auroc" else 0.006  # Dice: its spread is measured
    rows = []
    for index, site in enumerate((*SITES, ALL_SITES)):
        values = {FEDERATED: (*federated, 0.9)[index], POOLED: pooled - 0.004 * index}
        for trained_at, name in enumerate(SITES):
            values[local_model(name)] = own[trained_at] - 0.05 * (trained_at != index)
        for model, value in values.items():
            other = (
                {"accuracy": value - 0.1} if study.metric == "auroc" else {"hd95": 9 - 8 * value}
            )
            for metric, number in {study.metric: value, **other}.items():
                bound = 0.0004 if metric == "auroc" else 0.0
                rows.append(
                    MetricRow(model, -1, site, "test", metric, "", number, 60, bound, error)
                )
        for class_index, name in enumerate(study.data.classes):
            absent = (site, name) == ("hospital-2", "vasc")
            value = math.nan if absent else values[FEDERATED] - 0.02 * (class_index % 3)
            support = 0 if absent else 8 + class_index
            rows.append(MetricRow(FEDERATED, -1, site, "test", study.metric, name, value, support))
    return rows


def split_rows(study: Study) -> list[SplitRow]:
    rows = []
    for index, site in enumerate(SITES):
        for split, share in (("train", 70), ("validation", 15), ("test", 60)):
            counts = [
                0
                if (site, name) == ("hospital-2", "vasc")
                else share * (1 + (k * 3 + index * 2) % 5) // 5
                for k, name in enumerate(study.data.classes)
            ]
            total = sum(counts) if study.study.task == "classification" else share
            rows.append(SplitRow(site, split, "", total + 5, total))
            rows += [
                SplitRow(site, split, name, count, count)
                for name, count in zip(study.data.classes, counts, strict=True)
                if study.study.task == "classification"
            ]
    return rows


def traffic_rows(rounds: int) -> list[TrafficRow]:
    return [
        TrafficRow(FEDERATED, r, site, 1_650_000, 1_652_000, 3 + index + 0.3 * (r % 3), 12)
        for r in range(1, rounds + 1)
        for index, site in enumerate(SITES)
    ]


def made_facts(study: Study, status: str, finished: bool) -> RunFacts:
    return RunFacts(
        wardround="0.1.0",
        command=("wardround", "simulate", "my study.toml", "--seed", "0"),
        digest=study.digest,
        seed=0,
        started="2026-03-01 10:00:00",
        status=status,
        finished="2026-03-01 10:12:00" if finished else None,
        environment={"python": "3.11.7", "torch": "2.13.0", "cores": "2"},
        seconds={"data": 2.1, "federated": 301.4, "pooled": 122.0, "alone": 130.2},
        notes=("hospital-2 holds no example of vasc.",),
        data={"name": "Invented", "licence": "CC0", "citation": "Nobody 2026", "home": HOME_PAGE},
        best_round=7 if finished else 2,
        parameters=412_345,
    )


def made_samples(study: Study) -> Samples:
    generator = np.random.default_rng(0)
    count = 14
    y, x = np.mgrid[:64, :64]
    site = np.array([SITES[i % 4] for i in range(count)])
    score = np.linspace(0.55, 0.99, count)
    radius = [np.hypot(x - 32, y - 30 - i % 3) for i in range(count)]
    truth = np.stack([(r < 26).astype(np.uint8) + (r < 15) for r in radius])
    images = truth / 3 + 0.1 + 0.05 * generator.standard_normal(truth.shape)
    images = images.clip(0, 1).astype(np.float32)
    if study.study.task == "segmentation":
        return Samples(images, truth, np.roll(truth, 2, axis=2), site, score)
    colours = np.stack([images, images * 0.7, images * 0.6], axis=-1)
    labels = np.arange(count) % 7
    return Samples(colours, labels, np.where(labels == 4, 5, labels), site, score)


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
