"""The signed record of a model's rounds: another tool reads it, and no byte can be changed."""

import base64
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from tests.support.studies.tiny_study import Said

from wardround.common.errors import ModelError
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.documents.signed_rounds import check_keys, model_lineage
from wardround.common.models.model_folder import (
    DIGEST,
    open_model_folder,
    require_exact_bytes,
    sign_model_folder,
    write_model_folder,
)
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.security.lineage import (
    LINEAGE_FILE,
    RoundMade,
    SignedRound,
    SiteRound,
    canonical,
    line_hash,
    open_line,
    sign_part,
    sign_round,
)
from wardround.common.security.lineage_verification import verify_lineage
from wardround.common.study.loading import parse_study

Command = Callable[..., Said]
CHANGES, RUN, ROUNDS = 1000, "ab" * 16, 3
STUDY = parse_study(
    {
        "study": {"name": "signed", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["no", "yes"],
            "covariates": [{"name": "a"}, {"name": "b"}],
        },
        "model": {"network": "mlp", "features": []},
    }
)
SERVER, NORTH, SOUTH = (
    Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3)
)


def part(number: int, model: str, key: Ed25519PrivateKey) -> SignedRound:
    said = SiteRound(STUDY.digest, RUN, number, 0, model, f"{number:064x}", "", "c" * 64)
    return sign_part(key, said)


def rounds_made(last: str) -> list[RoundMade]:
    """Return the rounds of two sites, unlinked, whose last model has this digest."""
    models = [f"{number + 100:064x}" for number in range(ROUNDS)] + [last]
    made = []
    for number, model in enumerate(models):
        before = models[number - 1] if number else ""
        keys = (NORTH, SOUTH) if number else ()
        parts = tuple(part(number, before, key) for key in keys)
        sent = (before,) if number else ()
        code = ("0.1.0", "d" * 64)
        made.append(
            RoundMade(STUDY.digest, RUN, number, model, before, "", sent, code, "fedavg", parts)
        )
    return made


def record_of(made: list[RoundMade], key: Ed25519PrivateKey = SERVER) -> bytes:
    lines: list[bytes] = []
    for one in made:
        previous = line_hash(lines[-1]) if lines else ""
        lines.append(sign_round(key, replace(one, previous=previous)))
    return b"".join(line + b"\n" for line in lines)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of a signed model with its record."""
    torch.manual_seed(0)
    weights = read_parameters(build_network(STUDY, 0))
    contract = Contract(
        wardround="0.1.0",
        name="signed",
        round=ROUNDS,
        study=study_content(STUDY),
        study_digest=STUDY.digest,
        parameters=digest(weights),
        seen_note="a table",
    )
    record = record_of(rounds_made(digest(weights))).decode()
    folder = tmp_path / "model"
    write_model_folder(folder, weights, contract, (), ("# card\n", "none\n"), record)
    sign_model_folder(folder, SERVER)
    return folder


def verify(folder: Path) -> None:
    """Do what ``wardround model verify`` does."""
    found = open_model_folder(folder)
    require_exact_bytes(found)
    lineage = model_lineage(found, found.weights())
    assert lineage is not None
    check_keys(lineage, SERVER.public_key(), NORTH.public_key())


def public_file(folder: Path, key: Ed25519PrivateKey) -> Path:
    path = folder / "some.pub"
    content = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(content)
    return path


def envelopes(record: bytes) -> list[tuple[dict[str, Any], Ed25519PrivateKey]]:
    """Return each envelope of a record, those of the sites too, and who signed it."""
    found = []
    for line in record.splitlines():
        envelope = json.loads(line)
        found.append((envelope, SERVER))
        statement = json.loads(base64.b64decode(envelope["payload"]))
        for receipt in statement["predicate"]["receipts"]:
            keyid = receipt["signatures"][0]["keyid"]
            by_key = {k.public_key().public_bytes_raw().hex(): k for k in (NORTH, SOUTH)}
            found.append((receipt, by_key[keyid]))
    return found


def test_another_tool_verifies_every_signature(model: Path) -> None:
    found = envelopes((model / LINEAGE_FILE).read_bytes())
    assert len(found) == 1 + ROUNDS * 3
    for content, key in found:
        envelope = Envelope.from_dict(json.loads(json.dumps(content)))
        public = key.public_key().public_bytes_raw().hex()
        keys = [SSlibKey(public, "ed25519", "ed25519", {"public": public})]
        assert list(envelope.verify(keys, 1)) == [public]
        statement = json.loads(envelope.payload)
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert envelope.payload_type == "application/vnd.in-toto+json"
        other = SERVER if key is not SERVER else NORTH
        wrong = other.public_key().public_bytes_raw().hex()
        with pytest.raises(VerificationError):
            envelope.verify([SSlibKey(public, "ed25519", "ed25519", {"public": wrong})], 1)


@pytest.mark.parametrize("changes", [100, pytest.param(CHANGES, marks=pytest.mark.long)])
def test_each_changed_byte_of_any_file_is_refused(model: Path, changes: int) -> None:
    """All 1,000 changes take 18 s on one core; each of them is refused."""
    verify(model)
    files = sorted(model.iterdir())
    sizes = [path.stat().st_size for path in files]
    draw = random.Random(14)
    for number in range(changes):
        # Half of them over all files alike, so that short ones are not passed over.
        (path,) = draw.choices(files, sizes) if number % 2 else [draw.choice(files)]
        content = path.read_bytes()
        place = draw.randrange(len(content))
        change = draw.choice([b for b in range(256) if b != content[place]])
        if number % 10 == 0:  # a blank for a newline, where there is one
            blanks = [at for at, byte in enumerate(content) if byte in b" \n"]
            place, change = (draw.choice(blanks), ord("\t")) if blanks else (place, change)
        path.write_bytes(content[:place] + bytes([change]) + content[place + 1 :])
        with pytest.raises(ModelError):
            verify(model)
        path.write_bytes(content)
    verify(model)


def test_each_of_a_thousand_changed_bytes_of_the_record_alone_is_refused(model: Path) -> None:
    """Whoever changes the record can write the hashes of the folder anew."""
    content, weights = (model / LINEAGE_FILE).read_bytes(), open_model_folder(model).weights()
    asked = (STUDY.digest, digest(weights), ROUNDS)
    assert verify_lineage(content, *asked).sites
    draw = random.Random(15)
    for _ in range(CHANGES):
        place = draw.randrange(len(content))
        change = draw.choice([b for b in range(256) if b != content[place]])
        with pytest.raises(ModelError):
            verify_lineage(content[:place] + bytes([change]) + content[place + 1 :], *asked)


@pytest.mark.parametrize("cut", ["first", "middle", "last", "twice", "newline", "blank", "empty"])
def test_a_line_that_is_missing_or_too_many_is_refused(model: Path, cut: str) -> None:
    lines = (model / LINEAGE_FILE).read_bytes().splitlines(keepends=True)
    changed = {
        "first": lines[1:],
        "middle": lines[:1] + lines[2:],
        "last": lines[:-1],
        "twice": [*lines, lines[-1]],
        "newline": [b"".join(lines)[:-1]],
        "blank": [lines[0], b"\n", *lines[1:]],
        "empty": [b"\n"],
    }[cut]
    last = digest(open_model_folder(model).weights())
    with pytest.raises(ModelError, match=r"lineage\.jsonl"):
        verify_lineage(b"".join(changed), STUDY.digest, last, ROUNDS)


def test_another_spelling_of_the_same_json_is_refused(model: Path) -> None:
    line = (model / LINEAGE_FILE).read_bytes().splitlines()[0]
    assert open_line(line)
    spelt = json.dumps(json.loads(line)).encode()
    assert json.loads(spelt) == json.loads(line)
    with pytest.raises(ModelError, match="not spelt as it was written"):
        open_line(spelt)


def test_a_part_of_another_run_round_or_model_is_refused() -> None:
    last = "f" * 64
    made = rounds_made(last)
    whole = part(2, made[2].before, NORTH)
    wrong = {
        "run": sign_part(NORTH, replace(whole.part, run="cd" * 16)),
        "model": sign_part(NORTH, replace(whole.part, model="e" * 64)),
        "later": sign_part(NORTH, replace(whole.part, round=3)),
        "forged": replace(whole, key=SOUTH.public_key().public_bytes_raw().hex()),
    }
    assert verify_lineage(record_of(made), STUDY.digest, last, ROUNDS).rounds == ROUNDS
    for one in wrong.values():
        bad = [*made[:2], replace(made[2], parts=(one,)), *made[3:]]
        with pytest.raises(ModelError):
            verify_lineage(record_of(bad), STUDY.digest, last, ROUNDS)
    twice = [*made[:2], replace(made[2], parts=(whole, whole)), *made[3:]]
    with pytest.raises(ModelError, match="names other sites"):
        verify_lineage(record_of(twice), STUDY.digest, last, ROUNDS)


def test_a_server_cannot_count_a_sites_part_in_two_rounds() -> None:
    """On 3cda7f4 one receipt was good for every later round: a site's consent many times over."""
    last = "f" * 64
    made = rounds_made(last)
    again = [*made[:3], replace(made[3], parts=(part(2, made[2].before, NORTH),))]
    with pytest.raises(ModelError, match="counts a part twice"):
        verify_lineage(record_of(again), STUDY.digest, last, ROUNDS)
    late = [*made[:2], replace(made[2], parts=()), *again[3:]]
    assert verify_lineage(record_of(late), STUDY.digest, last, ROUNDS).rounds == ROUNDS


def test_a_record_of_hostile_values_ends_in_words() -> None:
    for hostile in (b"[]", b"{}", b"null", b"[" * 5000, b'{"payload":1}', b"\xff", b"NaN"):
        with pytest.raises(ModelError, match=r"lineage\.jsonl"):
            verify_lineage(hostile + b"\n", STUDY.digest, "f" * 64, 0)
    for statement in ({}, [], {"_type": "x"}, {"subject": []}):
        line = sign_statement(statement)
        with pytest.raises(ModelError, match=r"lineage\.jsonl"):
            verify_lineage(line + b"\n", STUDY.digest, "f" * 64, 0)


def sign_statement(statement: object) -> bytes:
    payload = canonical(statement)
    kind = b"application/vnd.in-toto+json"
    signed = SERVER.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    key = SERVER.public_key().public_bytes_raw().hex()
    return canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind.decode(),
            "signatures": [{"keyid": key, "sig": base64.b64encode(signed).decode()}],
        }
    )


def test_the_command_says_who_signed_and_refuses_another_key(
    model: Path, tmp_path: Path, wardround: Command
) -> None:
    said = wardround("model", "verify", model, "--server-key", public_file(tmp_path, SERVER))
    assert said.code == 0, said.err
    assert f"{ROUNDS} rounds, signed by the server's key" in said.out
    assert said.out.count("signed its part of 3 rounds") == 2
    said = wardround("model", "verify", model, "--server-key", public_file(tmp_path, NORTH))
    assert said.code == 2
    assert "signed with another key" in said.err
    stranger = public_file(tmp_path, Ed25519PrivateKey.generate())
    said = wardround("model", "verify", model, "--site-key", stranger)
    assert said.code == 2
    assert "took no part" in said.err


def test_a_model_whose_record_was_taken_out_is_refused_where_a_key_is_given(
    model: Path, tmp_path: Path, wardround: Command
) -> None:
    opened = open_model_folder(model)
    bare = tmp_path / "bare"
    texts = opened.card, opened.licence
    write_model_folder(bare, opened.weights(), opened.contract, opened.measured, texts)
    assert "its rounds are not signed" in wardround("model", "verify", bare).out
    said = wardround("model", "verify", bare, "--server-key", public_file(tmp_path, SERVER))
    assert said.code == 2
    assert LINEAGE_FILE in said.err


def test_weights_of_another_model_are_refused_though_the_folder_is_whole(
    model: Path, tmp_path: Path
) -> None:
    opened = open_model_folder(model)
    weights = {name: tensor + 1 for name, tensor in opened.weights().items()}
    contract = opened.contract.model_copy(update={"parameters": digest(weights)})
    other = tmp_path / "other"
    texts = opened.card, opened.licence
    write_model_folder(other, weights, contract, (), texts, opened.lineage.decode())
    found = open_model_folder(other)
    with pytest.raises(ModelError, match="does not lead to these weights"):
        model_lineage(found, found.weights())


def test_a_blank_in_the_file_of_hashes_is_refused(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    text = (copy / DIGEST).read_text()
    (copy / DIGEST).write_text(text.replace("\n", " \n", 1))
    with pytest.raises(ModelError, match="was changed after it was written"):
        require_exact_bytes(open_model_folder(copy))
