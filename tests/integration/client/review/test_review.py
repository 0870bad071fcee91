"""``wardround site review``: from a model's doubts to the next round's labels."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.clinic.model_folders import untrained_model
from tests.support.hospitals.review_ward import CLASSIFIES, SEGMENTS, review_site, study_of
from tests.support.studies.tiny_study import Said

from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.egress.gateway import Gateway
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import Site, open_site

Wardround = Callable[..., Said]


def _queue(wardround: Wardround, site: Site, model: Path, *more: object) -> list[dict[str, str]]:
    words = ("site", "review", "queue", site.folder, "--model", model, "--device", "cpu")
    said = wardround(*words, *more)
    assert said.code == 0, said.err
    (place,) = (site.folder / "review" / "queues").glob("*.csv")
    with place.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _read(path: Path, rows: list[dict[str, str]], label: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["case", "examination", "label"])
        writer.writeheader()
        writer.writerows({**row, "label": label} for row in rows)
    return path


def test_what_a_reader_says_is_what_the_next_round_trains_on(
    tmp_path: Path, wardround: Wardround
) -> None:
    site = review_site(tmp_path / "north", unlabelled=10)
    model, study = untrained_model(tmp_path / "model", CLASSIFIES), study_of(CLASSIFIES)
    before = (site.folder / "manifest.csv").read_bytes()
    session = SiteSession(site, ModelContext.build(study, "cpu"))
    had = len(session.cohorts.train)

    rows = _queue(wardround, site, model, "--budget", "5")
    assert 5 <= len(rows) <= 10
    queue = json.loads((site.folder / "review" / "queues" / "first.json").read_text())
    assert {arm for one in queue["entries"] for arm in one["arms"]} == {"chosen", "random"}
    listed = (site.folder / "review" / "queues" / "first.csv").read_text()
    assert "chosen" not in listed
    assert "CANARY" not in listed + json.dumps(queue)

    said = wardround(
        "site", "review", "take", site.folder, _read(tmp_path / "r.csv", rows, "abnormal"),
        "--reader", "A. Reader",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert f"Took {len(rows)} corrections" in said.out

    assert session.has_stale_data(images=False)
    session.let_go()
    joined = sum(row["examination"].startswith("unlabelled") for row in rows)
    assert len(session.cohorts.train) == had + joined
    now = {one.row: one for one in open_manifest(site, study).examinations}
    for row in rows:
        if row["examination"].startswith("row "):
            assert now[int(row["examination"].split()[1])].label == (1.0,)
    assert (site.folder / "manifest.csv").read_bytes() == before
    kinds = [
        json.loads(line)["kind"]
        for line in (site.folder / "audit" / "log.jsonl").read_text().splitlines()
    ]
    assert kinds == ["review", "correction"]


def test_the_audit_log_says_which_corrections_a_round_was_trained_with(
    tmp_path: Path, wardround: Wardround
) -> None:
    site = review_site(tmp_path / "north")
    model, study = untrained_model(tmp_path / "model", CLASSIFIES), study_of(CLASSIFIES)
    rows = _queue(wardround, site, model, "--budget", "2")
    said = wardround(
        "site", "review", "label", site.folder, rows[0]["case"], "abnormal", "--reader", "AB"
    )
    assert said.code == 0, said.err
    Gateway.open(site.folder, explains=False).describe(
        SiteSession(site, ModelContext.build(study, "cpu")), standalone=True
    )
    table = [
        json.loads(line) for line in site.corrections_path.read_text(encoding="utf-8").splitlines()
    ]
    entries = [
        json.loads(line) for line in (site.folder / "audit" / "log.jsonl").read_text().splitlines()
    ]
    (noted,) = [one for one in entries if one["kind"] == "corrections"]
    assert noted["sha256"] == table[-1]["hash"]
    assert noted["study"] == study.digest


def test_no_correction_moves_a_patient_to_another_part(
    tmp_path: Path, wardround: Wardround
) -> None:
    site = review_site(tmp_path / "north", unlabelled=12)
    manifest = site.folder / "manifest.csv"
    rows = [line.rsplit(",", 1)[0] for line in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(rows) + "\n")  # without a column split: parts are drawn
    model, study = untrained_model(tmp_path / "model", CLASSIFIES), study_of(CLASSIFIES)
    listed = _queue(wardround, site, model, "--budget", "12")
    drawn = partition_patients(open_manifest(site, study).examinations, study, site).parts
    before = {one.patient: part for part, some in drawn.items() for one in some}
    said = wardround(
        "site", "review", "take", site.folder, _read(tmp_path / "r.csv", listed, "abnormal"),
        "--reader", "AB",
    )  # fmt: skip
    assert said.code == 0, said.err
    drawn = partition_patients(open_manifest(site, study).examinations, study, site).parts
    after = {one.patient: part for part, some in drawn.items() for one in some}
    assert before.items() <= after.items()
    assert all(after[patient] == "train" for patient in after.keys() - before.keys())
    assert after.keys() - before.keys()


def test_a_changed_mask_is_the_label_of_the_next_round(
    tmp_path: Path, wardround: Wardround
) -> None:
    site = review_site(tmp_path / "north", "mask")
    model, study = untrained_model(tmp_path / "model", SEGMENTS), study_of(SEGMENTS)
    rows = _queue(wardround, site, model, "--budget", "3", "--by", "random")
    case, row = rows[0]["case"], int(rows[0]["examination"].split()[1])
    drawn = np.zeros((16, 16), np.uint8)
    drawn[2:5, 3:9] = 1
    (tmp_path / "masks").mkdir()
    Image.fromarray(drawn).save(tmp_path / "masks" / f"{case}.png")
    Image.fromarray(drawn[:8]).save(tmp_path / "masks" / f"{rows[1]['case']}.png")
    Image.fromarray(drawn).save(tmp_path / "masks" / "CANARYPATIENT003.png")
    words = ("site", "review", "take", site.folder, tmp_path / "masks", "--reader", "AB")
    said = wardround(*words)
    assert said.code == 1
    assert "Took 1 corrections; 1 change" in said.out
    assert said.out.count("Refused:") == 2
    assert "16x16" in said.out.replace(" ", "") or "8" in said.out
    assert "CANARY" not in said.out + said.err
    session = SiteSession(site, ModelContext.build(study, "cpu"))
    cohort = session.cohorts.train
    place = next(at for at, one in enumerate(cohort.examinations) if one.row == row)
    assert np.array_equal(cohort.case(place).targets.squeeze().numpy() == 1, drawn == 1)
    assert wardround(*words).code == 1  # again: the same mask changes nothing
    assert "0 change something" in wardround(*words).out


def test_the_report_says_that_choosing_did_not_beat_random(
    tmp_path: Path, wardround: Wardround
) -> None:
    site = review_site(tmp_path / "north")
    model = untrained_model(tmp_path / "model", CLASSIFIES)
    rows = _queue(wardround, site, model, "--budget", "6")
    for reader, label in (("AB", "abnormal"), ("CD", "normal")):
        table = _read(tmp_path / f"{reader}.csv", rows, label)
        assert wardround("site", "review", "take", site.folder, table, "--reader", reader).code == 0
    said = wardround("site", "review", "report", site.folder, "--train", "2")
    assert said.code == 0, said.err
    assert "chosen: 6 of 6 read" in said.out
    assert "did not beat random" in said.out
    assert "Trained on each arm" in said.out
    assert "AB and CD" in said.out
    told = json.loads(wardround("site", "review", "report", site.folder, "--json").out)
    assert told["verdict"] in ("no gain", "better", "worse")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--by", "disagreement"), "needs two or more models"),
        (("--by", "bald"), "drops none"),
        (("--by", "guessing"), "unknown way of choosing"),
        (("--budget", "0"), "shows nobody"),
        (("--name", "../x"), "small letters"),
    ],
)
def test_a_queue_that_cannot_be_made_is_refused_in_words(
    words: tuple[str, ...], sentence: str, tmp_path: Path, wardround: Wardround
) -> None:
    site = review_site(tmp_path / "north")
    model = untrained_model(tmp_path / "model", CLASSIFIES)
    said = wardround("site", "review", "queue", site.folder, "--model", model, *words)
    assert said.code == 2
    assert sentence in said.err
    assert not (site.folder / "review" / "queues").exists()


def test_committees_and_dropout_rank_cases(tmp_path: Path, wardround: Wardround) -> None:
    site = review_site(tmp_path / "north")
    content = {**CLASSIFIES, "model": {**CLASSIFIES["model"], "dropout": 0.5}}
    models = [untrained_model(tmp_path / f"model-{seed}", content, seed) for seed in (1, 2)]
    for by in ("disagreement", "bald"):
        flags = [word for one in models for word in ("--model", one)]
        words = ("site", "review", "queue", site.folder, "--by", by, "--name", by, *flags)
        said = wardround(*words)
        assert said.code == 0, said.err
        queue = json.loads((site.folder / "review" / "queues" / f"{by}.json").read_text())
        assert len({one["score"] for one in queue["entries"]}) > 1
    assert open_site(site.folder)
