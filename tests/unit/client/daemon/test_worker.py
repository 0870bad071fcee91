"""The worker: it answers from file to file, refuses in words, and is started again when it dies."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from wardround.client.daemon.job_files import JobFiles, key_of
from wardround.client.daemon.job_runner import answer_job
from wardround.client.daemon.jobs import Done, Job
from wardround.client.daemon.worker_handle import AbandonedError, WarmWorker, WithdrawnError
from wardround.client.policy.approvals import pending_studies
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.message_file_writer import write_message
from wardround.common.flower.messages.message_loading import read_message
from wardround.common.flower.site_grid import claim_identity
from wardround.common.messages.instructions import Instruction, new_run, pack_instruction
from wardround.common.messages.replies import unpack_refusal, unpack_update
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

LIMIT = 10_000_000


@pytest.fixture(scope="module")
def study() -> Study:
    return parse_study(
        {
            "study": {"name": "worker", "task": "classification"},
            "data": {"kind": "table", "classes": ["no", "yes"], "covariates": [{"name": "a"}]},
            "model": {"network": "mlp", "features": [4]},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": 2},
            "federation": {"rounds": 2},
        }
    )


@pytest.fixture
def site(tmp_path: Path, study: Study) -> Path:
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\ndevice = "cpu"\n')
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "a"])
        for number in range(30):
            split = ("train", "validation", "test")[number // 2 % 3]
            writer.writerow([f"CANARY{number}", number % 2, split, number * 0.1])
    approve(folder, study.digest)
    return folder


def approve(folder: Path, *digests: str) -> None:
    (folder / "policy.toml").write_text(
        "privacy_required = false\nsmallest_cohort = 5\nsmallest_cell = 1\n"
        f'metrics = "sums"\napproved = {json.dumps(digests)}\n'
    )


def instruction_of(study: Study, run: str) -> RecordDict:
    initial = read_parameters(build_network(study, 0))
    return pack_instruction(Instruction(study.digest, run, 1, initial))


def write_instruction(files: JobFiles, content: RecordDict, kind: str = "train") -> None:
    claim_identity(7)
    write_message(files.instruction, Message(content, 11, kind, group_id="round 1"))


@pytest.fixture
def files(site: Path) -> JobFiles:
    return JobFiles(site / "state")


@pytest.fixture
def job(site: Path, files: JobFiles, study: Study) -> Job:
    return Job(str(files.instruction), str(files.reply), str(site), study.to_json(), LIMIT)


def changed(job: Job, **values: object) -> Job:
    from dataclasses import replace

    return replace(job, **values)  # type: ignore[arg-type]


def test_an_instruction_in_a_file_becomes_an_update_in_a_file(
    job: Job, files: JobFiles, study: Study
) -> None:
    run = new_run()
    write_instruction(files, instruction_of(study, run))
    assert answer_job(job) == Done("", is_kept=True, run=run, round=1)
    reply = read_message(files.reply, LIMIT)
    with MessageFile(files.instruction) as instruction:
        assert reply.metadata.reply_to_message_id == instruction.envelope.message_id
        assert reply.metadata.src_node_id == 11
    assert unpack_update(reply.content, study).updates == 2


def test_the_same_instruction_again_is_answered_with_the_same_numbers_and_no_training(
    job: Job, files: JobFiles, study: Study, site: Path
) -> None:
    content = instruction_of(study, new_run())
    write_instruction(files, content)
    answer_job(job)
    first = unpack_update(read_message(files.reply, LIMIT).content, study)
    with MessageFile(files.instruction) as instruction:
        first_id, key = (
            instruction.envelope.message_id,
            key_of(instruction.envelope, job.study, b""),
        )
        files.store_reply(key, "0" * 32, 1)
    (site / "manifest.csv").unlink()  # nobody reads it again
    time.sleep(0.01)
    write_instruction(files, content)
    with MessageFile(files.instruction) as instruction:
        assert instruction.envelope.message_id != first_id
        assert key_of(instruction.envelope, job.study, b"") == key
        second_id = instruction.envelope.message_id
    assert files.has_reply(key)
    assert answer_job(changed(job, again=True)) == Done("", is_kept=True)
    reply = read_message(files.reply, LIMIT)
    assert reply.metadata.reply_to_message_id == second_id
    second = unpack_update(reply.content, study)
    assert digest(first.parameters) == digest(second.parameters)
    assert first.seconds == second.seconds
    assert (site / "audit" / "log.jsonl").read_text().count('"kind":"update"') == 2


def test_a_kept_reply_that_the_disk_has_changed_does_not_leave(
    job: Job, files: JobFiles, study: Study
) -> None:
    write_instruction(files, instruction_of(study, new_run()))
    answer_job(job)
    with MessageFile(files.reply) as message_file:
        piece = max(message_file.envelope.object_ids, key=message_file.length)
        content = message_file.content(piece)
    whole = files.reply.read_bytes()
    place = whole.index(content) + len(content) - 1
    files.reply.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert answer_job(changed(job, again=True)) == Done("input", is_kept=False)
    reply = read_message(files.reply, LIMIT)
    assert not reply.content.array_records


def test_a_kept_reply_does_not_leave_once_its_study_is_no_longer_approved(
    job: Job, files: JobFiles, study: Study, site: Path
) -> None:
    write_instruction(files, instruction_of(study, new_run()))
    answer_job(job)
    approve(site)
    assert answer_job(changed(job, again=True)).refused == "approval"
    assert unpack_refusal(read_message(files.reply, LIMIT).content) is not None


def test_another_run_round_or_study_is_another_instruction(
    job: Job, files: JobFiles, study: Study
) -> None:
    keys = set()
    run = new_run()
    initial = read_parameters(build_network(study, 0))
    other = {name: torch.zeros_like(value) for name, value in initial.items()}
    instructions = [
        Instruction(study.digest, run, 1, initial),
        Instruction(study.digest, new_run(), 1, initial),
        Instruction(study.digest, run, 2, initial),
        Instruction(study.digest, run, 1, initial, attempt=1),
        Instruction(study.digest, run, 1, other),
        Instruction(study.digest, run, 1, initial, counted_round=0),
    ]
    for instruction in instructions:
        write_instruction(files, pack_instruction(instruction))
        with MessageFile(files.instruction) as message_file:
            keys |= {
                key_of(message_file.envelope, *said)
                for said in ((job.study, b""), ("another", b""), (job.study, b"stricter"))
            }
    assert len(keys) == 3 * len(instructions)


def test_what_a_killed_daemon_left_is_cleared_but_a_kept_reply_and_half_an_instruction_stay(
    files: JobFiles, site: Path
) -> None:
    for name in (
        "instruction.message",
        "instruction.part",
        "passing.message",
        "reply.part",
        "reply.message",
    ):
        (files.folder / name).write_bytes(b"x")
    files.store_reply("key", "0" * 32, 1)
    again = JobFiles(site / "state")
    left = sorted(path.name for path in again.folder.iterdir())
    assert left == ["instruction.part", "reply.key", "reply.message"]
    assert again.has_reply("key")
    assert not again.has_reply("another")
    again.forget_reply("query.describe")  # which a server that was restarted asks first
    assert again.has_reply("key")
    again.forget_reply()
    assert not again.has_reply("key")


def test_a_kept_reply_goes_once_the_server_has_counted_it_or_it_is_old(
    site: Path, files: JobFiles
) -> None:
    run, other = new_run(), new_run()

    def keep() -> None:
        files.reply.write_bytes(b"x")
        files.store_reply("key", run, 2)

    keep()
    for one, counted in ((other, 9), (run, 1), (run, -1), ("", -1)):
        files.forget_counted(one, counted)
    assert files.has_reply("key")
    files.forget_counted(run, 2)
    assert not files.reply.exists()
    keep()
    old = time.time() - 31 * 24 * 3600
    os.utime(files.reply, (old, old))
    files.forget_old(32)
    assert files.has_reply("key")
    files.forget_old(30)
    assert list(files.folder.iterdir()) == []


def test_an_evaluation_says_what_the_server_has_counted(
    job: Job, files: JobFiles, study: Study
) -> None:
    run, initial = new_run(), read_parameters(build_network(study, 0))
    instruction = Instruction(study.digest, run, 2, initial, counted_round=2)
    write_instruction(files, pack_instruction(instruction), "evaluate")
    done = answer_job(job)
    assert (done.refused, done.is_kept) == ("", False)
    assert (done.run, done.round, done.counted_round) == (run, 2, 2)


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        ({"refuse": "size"}, "train", "input"),
        ({"refuse": "words"}, "train", "input"),
        ({"refuse": "died"}, "train", "training"),
        ({"refuse": "policy"}, "train", "policy"),
        ({"limit": 10}, "train", "input"),
        ({"study": ""}, "train", "study"),
        ({"study": "{}"}, "query.describe", "study"),
        ({}, "query.manifest", "input"),
        ({}, "train.backdoor", "input"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_word_and_no_text(
    job: Job, files: JobFiles, study: Study, change: dict[str, object], kind: str, code: str
) -> None:
    write_instruction(files, instruction_of(study, new_run()), kind)
    assert answer_job(changed(job, **change)) == Done(code, is_kept=False)
    refusal = unpack_refusal(read_message(files.reply, LIMIT).content)
    assert refusal is not None
    assert (refusal.code, refusal.reason, refusal.site) == (code, "", "north")


def test_a_study_that_nobody_approved_waits_for_a_decision(
    job: Job, files: JobFiles, study: Study, site: Path
) -> None:
    approve(site)
    content = RecordDict({"instruction": ConfigRecord({"digest": study.digest})})
    write_instruction(files, content, "query.describe")
    assert answer_job(job).refused == "approval"
    assert [one.study.digest for one in pending_studies(site)] == [study.digest]


def test_a_dead_worker_is_replaced_and_the_message_answered_by_the_next(
    job: Job, files: JobFiles, study: Study
) -> None:
    write_instruction(files, instruction_of(study, new_run()))
    worker = WarmWorker((), lambda: False)
    try:
        os.kill(worker.process_id, signal.SIGKILL)
        assert worker.reply(job).is_kept
        assert worker.starts == 2
    finally:
        worker.stop()


def test_work_is_given_up_when_the_daemon_is_to_end(job: Job, files: JobFiles) -> None:
    is_over = threading.Event()
    worker = WarmWorker((), is_over.is_set)
    try:
        os.kill(worker.process_id, signal.SIGSTOP)
        is_over.set()
        with pytest.raises(AbandonedError):
            worker.reply(job)
    finally:
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 5


def test_work_that_nobody_wants_any_more_ends_with_its_process_and_the_next_one_is_ready(
    job: Job, files: JobFiles, study: Study
) -> None:
    worker = WarmWorker((), lambda: False)
    try:
        first = worker.process_id
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(WithdrawnError):
            worker.reply(job, lambda: True)
        assert (worker.starts, worker.process_id == first) == (2, False)
        run = new_run()
        write_instruction(files, instruction_of(study, run))
        done = worker.reply(job)
        assert (done.refused, done.is_kept, done.run) == ("", True, run)
    finally:
        worker.stop()


def test_a_question_leaves_alone_what_an_interrupted_instruction_brought(files: JobFiles) -> None:
    assert files.place_of("query.describe").with_suffix(".part") != files.instruction.with_suffix(
        ".part"
    )
    assert files.place_of("train") == files.place_of("evaluate") == files.instruction
