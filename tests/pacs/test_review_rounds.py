"""What readers stored in a real archive is trained on in a real federated round."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pacs.orthanc import Orthanc
from tests.pacs.site import site_folder
from tests.pacs.test_review import (
    CONTENT,
    POLICY,
    RULES,
    STRANGER,
    _edited_in_the_archive,
    _entries,
    _queue,
    _site,
    _studies,
    _table,
)
from tests.support.clinic.model_folders import untrained_model
from tests.support.clinic.reader_reports import drawn_report
from tests.support.leaving.late_town import finished, submit_file
from tests.support.stage import deployed
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.onboarding.deidentification.keyed_maps import open_secret
from wardround.client.clinic.pacs.archive import open_archive
from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.common.study.loading import parse_study
from wardround.server.checkpoints.history import read_records

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
Command = Callable[..., Said]
STUDY = parse_study(
    {**CONTENT, "federation": {"rounds": 1, "minimum_sites": 2}, "evaluation": {"keep": "last"}}
)
APPROVED = (
    "privacy_required = false\nsmallest_cohort = 1\nsmallest_cell = 1\n"
    f'metrics = "sums"\napproved = ["{STUDY.digest}"]\n'
)
REPORTED = {
    "study": {"name": "reported", "task": "classification"},
    "data": {**CONTENT["data"], "classes": ["normal", "abnormal"]},
    "model": {"network": "small-cnn", "features": [4, 8], "normalisation": "group"},
    "federation": {"rounds": 2},
}
OWN = ("site.toml", "keys", "audit", "state", "review", "pacs*", "unlabelled.csv", "import")


def test_a_federated_round_trains_on_the_mask_that_was_edited_in_the_archive(
    orthanc: Orthanc, t1_series: list[Path], tmp_path: Path, wardround: Command
) -> None:
    with deployed(tmp_path / "town") as town:
        town.change_settings(gathering_seconds=1.0)
        town.start_server()
        north, south = town.join("north"), town.join("south")
        joined = (north / "site.toml").read_bytes()
        archive = open_archive(site_folder(north, orthanc))
        for number, one in _studies(t1_series).items():
            if number != STRANGER:
                archive.store(one)
        _site(north, orthanc, wardround)
        (north / "site.toml").write_bytes(joined)
        shutil.copytree(
            north, south, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*OWN, "policy.toml")
        )
        for place in (north, south):
            (place / "policy.toml").write_text(APPROVED)
        had = len(open_cohorts(open_site(north), STUDY).train)
        _queue(north, wardround)
        patient = (north / "unlabelled.csv").read_text().splitlines()[1].split(",")[0]
        _edited_in_the_archive(north, archive, t1_series, patient)
        said = wardround("site", "review", "take", north, "pacs")
        assert "Took 1 corrections; 1 change something." in said.out, said.out + said.err
        path = tmp_path / "study.toml"
        path.write_text(STUDY.to_toml())
        for name in ("north", "south"):
            town.start_site(name)

        run = finished(submit_file(town, path, "north", "south"))

        record = read_records(run.checkpoints / "history.jsonl")[0]
        assert {one.site: one.examinations for one in record.sites} == {
            "north": had + 1,
            "south": had,
        }
        noted = [one for one in _entries(north) if one["kind"] == "corrections"]
        assert {one["sha256"] for one in noted} == {_table(north)[-1]["hash"]}
        assert not [one for one in _entries(south) if one["kind"] == "corrections"]
        assert "CANARY" not in "".join(town.log(name) for name in ("server", "north", "south"))


def test_a_report_that_was_verified_in_the_archive_is_the_label(
    orthanc: Orthanc, t1_series: list[Path], tmp_path: Path, wardround: Command
) -> None:
    site, studies = site_folder(tmp_path / "north", orthanc), _studies(t1_series)
    archive = open_archive(site)
    elsewhere = studies.pop(STRANGER)
    for one in studies.values():
        archive.store(one)
    (tmp_path / "import.toml").write_text(RULES)
    imported = wardround("site", "import", "pacs", "--rules", tmp_path / "import.toml", site)
    assert "Imported 8" in imported.out, imported.out + imported.err
    with (site / "manifest.csv").open(newline="") as stream:
        rows = [(row["patient"], row["image"]) for row in csv.DictReader(stream)]
    labels, splits = ("normal", "abnormal"), ("train", "validation", "test")
    lines = [
        f"{patient},{image},{labels[n % 2]},{splits[n % 3]}"
        for n, (patient, image) in enumerate(rows)
    ]
    (site / "manifest.csv").write_text("\n".join(["patient,image,label,split", *lines]) + "\n")
    (site / "policy.toml").write_text(POLICY)
    model = untrained_model(tmp_path / "model", REPORTED)
    words = ("site", "review", "queue", site, "--model", model, "--by", "random", "--budget", 20)
    assert wardround(*words).code == 0

    (patient, _), secret = rows[0], open_secret(site)
    (own,) = (s for s in studies.values() if secret.pseudonym(str(s[0].PatientID)) == patient)
    program = drawn_report(own[0], "abnormal", flag="UNVERIFIED")
    verified = drawn_report(own[0], "abnormal", observer="CANARYREADER^Ada")
    archive.store(elsewhere)
    for made in (program, verified, drawn_report(elsewhere[0], "abnormal")):
        archive.store([made])

    said = wardround("site", "review", "take", site, "pacs")
    assert "Took 1 corrections; 1 change something." in said.out, said.out + said.err
    assert "passed over: nobody has verified the report" in said.out
    assert "CANARY" not in said.out + said.err
    (line,) = _table(site)
    assert (line["old"], line["new"], line["source"]) == ("normal", "abnormal", "pacs")
    assert line["reader"] == "CANARYREADER Ada"
    noted = [one["sha256"] for one in _entries(site) if one["kind"] == "correction"]
    assert noted == [line["hash"]]
    train = open_cohorts(open_site(site), parse_study(REPORTED)).train
    place = next(n for n, one in enumerate(train.examinations) if one.patient == patient)
    assert int(train.targets[place]) == 1
    assert "Took 0 corrections" in wardround("site", "review", "take", site, "pacs").out
