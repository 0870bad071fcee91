"""A hospital whose readers correct labels: pictures, a manifest, unlabelled ones, and a model."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from wardround.client.clinic.review.cases import list_cases
from wardround.client.clinic.review.queue import Queue, Wish, make_queue, save_queue
from wardround.client.clinic.review.taking import Desk
from wardround.client.site.folder import Site, open_site
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

POLICY = 'approved = "any"\nsimulated = true\nprivacy_required = false\n'
CLASSES = ("normal", "abnormal")
CLASSIFIES: dict[str, dict[str, object]] = {
    "study": {"name": "squares", "task": "classification"},
    "data": {"classes": list(CLASSES), "size": [16, 16]},
    "model": {"network": "small-cnn", "features": [4, 8], "normalisation": "group"},
    "training": {"batch_size": 4, "local_steps": 2},
    "federation": {"rounds": 1},
}
SEGMENTS: dict[str, dict[str, object]] = {
    "study": {"name": "blocks", "task": "segmentation"},
    "data": {"classes": ["background", "block"], "size": [16, 16]},
    "model": {"network": "unet", "features": [4, 8], "normalisation": "group"},
    "training": {"batch_size": 2, "local_steps": 1, "loss": "dice-ce"},
    "federation": {"rounds": 1},
}
PATIENTS = 30


def picture(folder: Path, number: int) -> str:
    """Write a picture, bright where its number is odd; return its path from the folder."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 80, (16, 16)).astype(np.uint8)
    if number % 2:
        pixels[4:12, 4:12] += 120
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / f"CANARYFILE{number:03d}.png")
    return f"images/CANARYFILE{number:03d}.png"


def review_site(folder: Path, column: str = "label", unlabelled: int = 0) -> Site:
    """Write a site of 30 patients, the last three of every ten held out, and more unlabelled."""
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
    rows = [("patient", "image", column, "split")]
    split = ("train",) * 7 + ("validation", "validation", "test")
    for number in range(PATIENTS):
        target = CLASSES[number % 2]
        if column == "mask":
            mask = np.zeros((16, 16), np.uint8)
            mask[4:12, 4:12] = number % 2
            (folder / "masks").mkdir(exist_ok=True)
            target = f"masks/{number:03d}.png"
            Image.fromarray(mask).save(folder / target)
        image = picture(folder, number)
        rows.append((f"CANARYPATIENT{number:03d}", image, target, split[number % 10]))
    _write(folder / "manifest.csv", rows)
    if unlabelled:
        more = [
            (f"CANARYPATIENT{number:03d}", picture(folder, number))
            for number in range(PATIENTS, PATIENTS + unlabelled)
        ]
        _write(folder / "unlabelled.csv", [("patient", "image"), *more])
    return open_site(folder)


def study_of(content: dict[str, dict[str, object]]) -> Study:
    """Return a study."""
    return parse_study(content)


def desk_of(site: Site, study: Study, name: str = "first", budget: int = 6) -> Desk:
    """Queue cases by lot, and return where corrections of them are handed in."""
    queue: Queue = make_queue(
        list_cases(site, study), None, study, Wish(name, "random", budget, again=True)
    )
    save_queue(site, queue)
    return Desk(site, queue, study, list_cases(site, study))


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
