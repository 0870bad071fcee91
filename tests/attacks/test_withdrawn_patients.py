"""A patient who was withdrawn during a run, and a site that goes on with a copy in its memory.

The hospital deletes rows and images while the site works; the server asks for the next round.
"""

import gc
import json
import logging
import os
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    context_of,
    refusal_of,
    said_by,
    write_policy,
    write_site,
)

from wardround.client.app import close_sessions, open_session
from wardround.client.data.reading import array_files
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.snapshot import open_salt, snapshot_of
from wardround.client.session.session import SiteSession
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.messages.replies import unpack_update
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks

PATIENTS = 60
IMAGES = parse_study(
    {
        "study": {"name": "images", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [8, 8]},
        "model": {"network": "small-cnn", "features": [4], "normalisation": "group"},
        "training": {"optimiser": "sgd", "learning_rate": 0.2, "batch_size": 8, "local_steps": 3},
        "federation": {"rounds": 3},
        "evaluation": {"metric": "auroc"},
    }
)
OTHER = with_changes(IMAGES, {"study.name": "others", "data.size": (6, 6)})
NOISE = {"mode": "patient", "noise_multiplier": 9.0, "sampling_rate": 0.1, "expected_patients": 30}
PRIVATE = parse_study({**STUDY.model_dump(exclude_defaults=True), "privacy": NOISE})
SPLITS = ("train", "train", "train", "validation", "test")


@pytest.fixture(autouse=True)
def _nothing_warm():  # type: ignore[no-untyped-def]
    close_sessions()
    array_files._cache.clear()
    yield
    close_sessions()


def hospital(folder: Path, *lines: str, **policy: str) -> Path:
    """Write a hospital with an image each of 60 patients, 36 of which train."""
    folder.mkdir()
    (folder / "site.toml").write_text("\n".join([f'name = "{folder.name}"', *lines]))
    generator = np.random.default_rng(0)
    rows = ["patient,image,label,split"]
    for patient in range(PATIENTS):
        np.save(folder / f"{patient}.npy", generator.normal(patient % 2, 1, (8, 8)))
        rows.append(f"p{patient},{patient}.npy,{'ab'[patient % 2]},{SPLITS[patient // 2 % 5]}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    digests = json.dumps([study.digest for study in (IMAGES, OTHER, PRIVATE, STUDY)])
    write_policy(folder, **{"approved": digests, "smallest_cohort": "20", **policy})
    return folder


def withdraw(folder: Path, *patients: int) -> None:
    """Delete rows as a person with a spreadsheet does."""
    manifest = folder / "manifest.csv"
    gone = tuple(f"p{patient}," for patient in patients)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(line for line in lines if not line.startswith(gone)))


def instruction_of(study: Study, number: int = 1, run: str = "") -> Instruction:
    parameters = read_parameters(build_network(study, study.federation.seed))
    return Instruction(study.digest, run or new_run(), number, parameters)


def model_of(content: RecordDict, study: Study = IMAGES) -> str:
    return digest(unpack_update(content, study).parameters)


def train(folder: Path, study: Study = IMAGES, number: int = 1) -> RecordDict:
    return ask(folder, "train", instruction_of(study, number), study)


def session_of(folder: Path, study: Study = IMAGES) -> SiteSession:
    return open_session(context_of(folder, study))


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_the_next_round_is_that_of_a_site_which_never_had_the_patient(
    place: str, tmp_path: Path
) -> None:
    folder = hospital(tmp_path / "north", f'cache_place = "{place}"')
    first = model_of(train(folder))
    withdraw(folder, 0, 1)
    second = model_of(train(folder))
    close_sessions()
    assert second == model_of(train(folder))
    assert second != first


def test_no_copy_stays_in_memory(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    train(folder)
    stack = session_of(folder).cohorts.train._prepared.stack
    assert stack is not None
    copies = [weakref.ref(stack.images), weakref.ref(session_of(folder).cohorts.train)]
    del stack
    withdraw(folder, 0)
    train(folder)
    gc.collect()
    assert [copy() for copy in copies] == [None, None]


def test_no_copy_stays_in_memory_where_the_site_then_refuses(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    train(folder)
    copy = weakref.ref(session_of(folder).cohorts.train)
    (folder / "manifest.csv").unlink()
    assert refusal_of(train(folder))[1] == "data"
    gc.collect()
    assert copy() is None


def test_a_question_about_one_study_lets_another_let_go_too(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    for study in (IMAGES, OTHER):
        train(folder, study)
    copy = weakref.ref(session_of(folder, OTHER).cohorts.train)
    withdraw(folder, 0)
    train(folder)
    gc.collect()
    assert copy() is None
    assert all(e.patient != "p0" for e in session_of(folder, OTHER).cohorts.train.examinations)


def test_evaluations_are_of_those_who_are_left_and_a_site_says_how_many(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", smallest_cell="1", metrics='"sums"')
    ask(folder, "query.describe", study=IMAGES)
    withdraw(folder, 0, 6)  # of train and of validation
    said = ask(folder, "query.describe", study=IMAGES)["header"]
    assert said["examinations"] == 35
    content = ask(folder, "evaluate", instruction_of(IMAGES), IMAGES)
    assert len(session_of(folder).cohorts.validation) == 11
    assert "metrics" in content


def test_an_image_that_was_deleted_is_missed_and_no_copy_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = hospital(tmp_path / "north", 'cache_place = "disk"')
    train(folder)
    kept = list((folder / "state" / "prepared").rglob("*.image.npy"))
    (folder / "1.npy").unlink()
    with caplog.at_level(logging.WARNING):
        assert refusal_of(train(folder))[1] == "data"
    assert "the file that the column image names is missing in row 3" in caplog.text
    left = list((folder / "state" / "prepared").rglob("*.image.npy"))
    assert len(left) == len(kept) - 1
    withdraw(folder, 1)
    assert len(unpack_update(train(folder), IMAGES).parameters) > 0


def test_an_image_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    first = model_of(train(folder))
    old = (folder / "1.npy").stat()
    np.save(folder / "new.npy", np.zeros((8, 8)))
    (folder / "new.npy").rename(folder / "1.npy")
    os.utime(folder / "1.npy", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (folder / "1.npy").stat().st_size == old.st_size
    second = model_of(train(folder))
    close_sessions()
    assert first != second == model_of(train(folder))


def test_an_archive_that_was_written_anew_is_not_remembered(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    np.savez(folder / "all.npz", x=np.stack([np.load(folder / f"{n}.npy") for n in range(60)]))
    rows = (folder / "manifest.csv").read_text().replace(".npy", "").splitlines()
    cells = [row.split(",") for row in rows[1:]]
    rows[1:] = [f"{p},all.npz#x#{n},{label},{part}" for p, n, label, part in cells]
    (folder / "manifest.csv").write_text("\n".join(rows))
    train(folder)
    copies = [weakref.ref(values) for values in array_files._cache.values()]
    assert len(copies) == 1
    withdraw(folder, 0)
    train(folder)
    gc.collect()
    assert copies[0]() is None


def test_prepared_copies_of_other_studies_go_from_the_disk_too(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", 'cache_place = "disk"')
    for study in (IMAGES, OTHER):
        train(folder, study)
        close_sessions()  # the daemon was started again in between
    prepared = folder / "state" / "prepared"
    assert len(list(prepared.iterdir())) == 2
    own = {path.name for path in session_of(folder).cohorts.prepared.folder.glob("*.image.npy")}
    close_sessions()
    withdraw(folder, 0)
    train(folder)
    assert len(list(prepared.iterdir())) == 1
    left = {path.name for path in session_of(folder).cohorts.prepared.folder.glob("*.image.npy")}
    assert len(own - left) == 1  # the others were not prepared again


def test_a_study_whose_prepared_copies_went_goes_on(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", 'cache_place = "disk"')
    for _ in range(2):
        for study in (IMAGES, OTHER):
            unpack_update(train(folder, study), study)
            os.utime(folder / "3.npy")


def test_too_few_who_are_left_are_refused_in_a_clear_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = hospital(tmp_path / "north", smallest_cohort="36")
    unpack_update(train(folder), IMAGES)
    withdraw(folder, 0)
    with caplog.at_level(logging.WARNING):
        assert refusal_of(train(folder)) == ("north", "policy", "")
    assert "35" in caplog.text
    assert "36" in caplog.text
    assert said_by(folder)[-1] == ("refusal", "deny: cohort")


def test_the_ledger_names_those_who_are_left(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north", approved=json.dumps([PRIVATE.digest]))
    run = new_run()
    unpack_update(ask(folder, "train", instruction_of(PRIVATE, 1, run), PRIVATE), PRIVATE)
    session = session_of(folder, PRIVATE)
    before = {e.patient for e in session.cohorts.train.examinations}
    withdraw(folder, int(min(before)[1:]))
    unpack_update(ask(folder, "train", instruction_of(PRIVATE, 2, run), PRIVATE), PRIVATE)
    with PrivacyLedger.open(folder) as ledger:
        charges = [one.charge.assignment for one in ledger._book.reservations.values()]
    snapshots = [assignment.snapshot for assignment in charges]
    salt = open_salt(folder / "ledger")
    assert snapshots == [snapshot_of(before, salt), snapshot_of(before - {min(before)}, salt)]


def test_new_rows_join_at_the_next_message_and_a_manifest_written_as_it_was_changes_nothing(
    tmp_path: Path,
) -> None:
    folder = hospital(tmp_path / "north")
    train(folder)
    held = session_of(folder).cohorts
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text())
    train(folder)
    assert session_of(folder).cohorts is held
    np.save(folder / "60.npy", np.ones((8, 8)))
    manifest.write_text(manifest.read_text() + "\np60,60.npy,a,train")
    train(folder)
    assert len(session_of(folder).cohorts.train) == len(held.train) + 1


def test_ten_thousand_images_are_looked_at_in_well_under_a_second(tmp_path: Path) -> None:
    from wardround.client.data.source_files import SourceFiles

    paths = [tmp_path / f"{number}.npy" for number in range(10_000)]
    for path in paths:
        path.touch()
    files = SourceFiles([])
    files.add_images(paths)
    seconds = []
    for _ in range(3):  # the machine may be busy
        started = time.perf_counter()
        assert not files.have_changed(images=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5
    paths[-1].unlink()
    assert files.have_changed(images=True)


def test_a_simulated_site_does_not_look_at_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hospital(tmp_path / "north")
    (folder / "policy.toml").write_text(
        'simulated = true\napproved = "any"\nprivacy_required = false\nsmallest_cohort = 1\n'
        'smallest_cell = 1\nmetrics = "sums"\n'
    )
    train(folder)
    looked: list[str] = []
    real = os.stat

    def note(path, *more, **named):  # type: ignore[no-untyped-def]
        looked.append(str(path))
        return real(path, *more, **named)

    monkeypatch.setattr("wardround.client.data.source_files.os.stat", note)
    train(folder)
    assert not any(name.endswith(".npy") for name in looked)
