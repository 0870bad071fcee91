"""A site whose training code tries to get an image out: nothing of it reaches the wire.

Every message that leaves the site's ClientApp is captured as bytes and searched for every image of
the site, and every row of one, in many encodings. What the guard cannot see stands at the end.
"""

import base64
import csv
import io
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray
from PIL import Image

from wardround.client.app import app, close_sessions, open_session
from wardround.client.egress import gateway as door_module
from wardround.client.policy.policy import POLICY_FILE
from wardround.client.session import SiteSession
from wardround.common.errors import DataError
from wardround.common.files.hash_chain import ChainHead
from wardround.common.flower.local import claim_identity, stamp
from wardround.common.flower.messages.content import to_bytes
from wardround.common.messages.instructions import (
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Instruction,
    new_run,
    pack_instruction,
)
from wardround.common.messages.replies import (
    REFUSAL_CODES,
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    unpack_refusal,
)
from wardround.common.metrics.values import SiteValues
from wardround.common.parameters.schema import read_parameters
from wardround.common.security.audit_verification import read_log, verify_log
from wardround.common.security.signing_key import open_public_key
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

SIDE, PATIENTS, NODE = 16, 80, 7
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Ward:
    """A hospital with a cautious policy, and all that its images look like on a wire."""

    folder: Path
    study: Study
    images: tuple[Pixels, ...]
    needles: tuple[bytes, ...]

    @property
    def secret(self) -> Pixels:
        return self.images[0]

    def context(self) -> Context:
        config: dict[str, Any] = {"site": str(self.folder), "device": "cpu"}
        return Context(1, NODE, config, RecordDict(), {"study": self.study.to_json()}, 1)

    def ask(self, kind: str, content: RecordDict) -> Message:
        claim_identity(1)
        message = Message(content, NODE, kind)
        stamp(message, "message-1")
        return app(message, self.context())

    def instruction(self, split: str = "validation") -> RecordDict:
        network = open_session(self.context()).context.network
        return pack_instruction(
            Instruction(self.study.digest, new_run(), 1, read_parameters(network), split=split)
        )

    def say_everything(self) -> list[Message]:
        """Return the answers to every kind of message."""
        return [
            self.ask(DESCRIBE, RecordDict({"instruction": ConfigRecord()})),
            self.ask(TRAIN, self.instruction()),
            self.ask(EVALUATE, self.instruction()),
            self.ask(EVALUATE, self.instruction("test")),
        ]


def on_the_wire(message: Message) -> bytes:
    """Return all that travels of a message."""
    parts = [repr(message.metadata).encode()]
    if message.has_content():
        parts.append(to_bytes(message.content))
    if message.has_error():
        parts.append(repr((message.error.code, message.error.reason)).encode())
    return b"\n".join(parts)


def encodings(pixels: Pixels) -> Iterator[bytes]:
    """Yield what an image, or a row of one, may look like."""
    scaled = pixels / 255
    for values in (pixels, scaled):
        for dtype in (np.float32, np.float64, np.float16):
            yield values.astype(dtype).tobytes()
    for raw in (pixels.tobytes(), scaled.astype(np.float32).tobytes()):
        yield raw
        yield base64.b64encode(raw)
        yield raw.hex().encode()
        yield zlib.compress(raw)
    yield ",".join(str(value) for value in pixels.reshape(-1)).encode()
    yield pixels.astype(np.int32).tobytes()
    yield pixels.astype(np.int64).tobytes()


def needles_of(images: tuple[Pixels, ...]) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for pixels in images:
        found += encodings(pixels)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        found += [file.getvalue(), base64.b64encode(file.getvalue())]
        for row in pixels:
            found += encodings(row)
    return tuple(found)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward") / "north"
    (folder / "images").mkdir(parents=True)
    drawn = np.random.default_rng(0)
    images, rows = [], [("patient", "image", "label", "split")]
    splits = ("train",) * 40 + ("validation",) * 20 + ("test",) * 20
    for number in range(PATIENTS):
        pixels = drawn.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        rows.append((f"p{number}", f"images/{number}.png", "ab"[number % 2], splits[number]))
        images.append(pixels)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    study = parse_study(
        {
            "study": {"name": "smuggling", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [SIDE, SIDE]},
            "model": {"network": "small-cnn", "features": [16, 8], "normalisation": "group"},
            "training": {"local_steps": 2, "batch_size": 8},
            "federation": {"rounds": 2},
        }
    )
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / POLICY_FILE).write_text(
        f'privacy_required = false\napproved = ["{study.digest}"]\n', encoding="utf-8"
    )
    yield Ward(folder, study, tuple(images), needles_of(tuple(images)))
    close_sessions()


def leaks(ward: Ward, messages: list[Message]) -> int:
    """Return how many of the site's images and rows, in any encoding, stand in what travelled."""
    wire = b"\n".join(on_the_wire(message) for message in messages)
    beginnings = {wire[place : place + SIDE] for place in range(len(wire))}
    return sum(needle[:SIDE] in beginnings and needle in wire for needle in ward.needles)


# --- What hostile code might do -------------------------------------------------------------
def text_of(pixels: Pixels) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


def as_float(pixels: Pixels) -> float:
    """Return eight pixels as the bits of a number."""
    return float(np.frombuffer(b"\x3f\xe5" + pixels.tobytes()[:6], ">f8")[0])


def as_count(pixels: Pixels) -> int:
    return int.from_bytes(pixels.tobytes()[:4], "big") >> 2


class LyingText(str):
    """Compares as what is expected and is sent as something else."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class LyingCount(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def first_name(update: SiteUpdate) -> str:
    return next(iter(update.parameters))


def image_like(update: SiteUpdate, pixels: Pixels, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of a parameter's shape whose first numbers are the image's bytes."""
    parameter = update.parameters[first_name(update)]
    flat = torch.zeros(parameter.numel(), dtype=dtype)
    count = min(len(flat), pixels.size)
    flat[:count] = torch.from_numpy(pixels.reshape(-1)[:count].copy()).to(dtype)
    return flat.reshape(parameter.shape)


def with_array(name: str) -> Callable[[SiteUpdate, Pixels], SiteUpdate]:
    def change(update: SiteUpdate, pixels: Pixels) -> SiteUpdate:
        extra = {name: torch.from_numpy(pixels / 255).float()}
        return replace(update, parameters={**update.parameters, **extra})

    return change


def wrong_shape(update: SiteUpdate, pixels: Pixels) -> SiteUpdate:
    image = {first_name(update): torch.from_numpy(pixels / 255).float()}
    return replace(update, parameters={**update.parameters, **image})


def wrong_type(dtype: torch.dtype) -> Callable[[SiteUpdate, Pixels], SiteUpdate]:
    def change(update: SiteUpdate, pixels: Pixels) -> SiteUpdate:
        image = {first_name(update): image_like(update, pixels, dtype)}
        return replace(update, parameters={**update.parameters, **image})

    return change


def image_as_name(update: SiteUpdate, pixels: Pixels) -> SiteUpdate:
    renamed = dict(update.parameters)
    renamed[text_of(pixels)] = renamed.pop(first_name(update))
    return replace(update, parameters=renamed)


def metric_named(update: SiteUpdate, pixels: Pixels) -> SiteUpdate:
    return replace(update, metrics=SiteValues(20, {text_of(pixels): 0.5}))


UPDATES: dict[str, Callable[[SiteUpdate, Pixels], SiteUpdate]] = {
    "extra array": with_array("image"),
    "array named like a buffer": with_array("features.0.running_mean"),
    "wrong shape": wrong_shape,
    "wrong type uint8": wrong_type(torch.uint8),
    "wrong type float64": wrong_type(torch.float64),
    "array's name": image_as_name,
    "auxiliary": lambda u, p: replace(u, auxiliary={"image": torch.from_numpy(p / 255)}),
    "metric value": lambda u, p: replace(u, metrics=SiteValues(20, {"auroc": as_float(p)})),
    "metric name": metric_named,
    "metric count": lambda u, p: replace(u, metrics=SiteValues(as_count(p), {"auroc": 0.5})),
    "loss": lambda u, p: replace(u, training_loss=as_float(p)),
    "seconds": lambda u, p: replace(u, seconds=as_float(p)),
    "examinations": lambda u, p: replace(u, examinations=as_count(p)),
    "updates": lambda u, p: replace(u, updates=as_count(p)),
    "site name": lambda u, p: replace(u, site=text_of(p)),
    "lying site name": lambda u, p: replace(u, site=LyingText(text_of(p))),
    "digest": lambda u, p: replace(u, digest=text_of(p)),
    "run": lambda u, p: replace(u, run=p.tobytes().hex()),
    "round": lambda u, p: replace(u, round=as_count(p)),
    "lying round": lambda u, p: replace(u, round=LyingCount(as_count(p))),
    "attempt": lambda u, p: replace(u, attempt=as_count(p)),
    "ledger": lambda u, p: replace(u, ledger=ChainHead(as_count(p), text_of(p))),
}


# What is not refused, since the site's own number takes its place or its digits are rounded off.
NEUTRAL = ("loss", "seconds", "ledger")


def try_update(ward: Ward, monkeypatch: pytest.MonkeyPatch, name: str) -> list[Message]:
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        return UPDATES[name](honest(session, *asked), ward.secret)

    monkeypatch.setattr(SiteSession, "train", train)
    return ward.say_everything()


@pytest.mark.parametrize("name", UPDATES)
def test_no_image_leaves_in_an_update(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reply = try_update(ward, monkeypatch, name)
    assert leaks(ward, reply) == 0
    refusal = unpack_refusal(reply[1].content)
    if name in NEUTRAL:
        wire = on_the_wire(reply[1])
        packed = np.array(as_float(ward.secret)).tobytes()
        assert packed not in wire
        assert packed[::-1] not in wire
    else:
        assert refusal is not None
        assert (refusal.site, refusal.code, refusal.reason) == ("north", "guard", "")


# --- Packing code that misuses the records themselves --------------------------------------
def extra_record(content: RecordDict, pixels: Pixels) -> None:
    content["notes"] = ConfigRecord({"text": text_of(pixels)})


def extra_setting(content: RecordDict, pixels: Pixels) -> None:
    _settings(content)["text"] = pixels.tobytes()


def list_of_numbers(content: RecordDict, pixels: Pixels) -> None:
    _numbers(content)["updates"] = [float(value) for value in pixels.reshape(-1)]


def extra_number(content: RecordDict, pixels: Pixels) -> None:
    _numbers(content)["pixels"] = [int(value) for value in pixels.reshape(-1)]


def _settings(content: RecordDict) -> ConfigRecord:
    record = content["header"]
    assert isinstance(record, ConfigRecord)
    return record


def _numbers(content: RecordDict) -> MetricRecord:
    record = content["facts"]
    assert isinstance(record, MetricRecord)
    return record


def _first(content: RecordDict) -> tuple[ArrayRecord, str, Array]:
    record = content["model"]
    assert isinstance(record, ArrayRecord)
    name, array = next(iter(record.items()))
    return record, name, array


def behind_the_values(content: RecordDict, pixels: Pixels) -> None:
    record, name, array = _first(content)
    data = array.data + pixels.tobytes()
    record[name] = Array(array.dtype, array.shape, array.stype, data)


def in_the_header(content: RecordDict, pixels: Pixels) -> None:
    record, name, array = _first(content)
    note = base64.b64encode(pixels[0].tobytes())
    blanks = array.data.index(b"   ")
    data = array.data[:blanks] + note + array.data[blanks + len(note) :]
    record[name] = Array(array.dtype, array.shape, array.stype, data)


def in_the_type(content: RecordDict, pixels: Pixels) -> None:
    record, name, array = _first(content)
    record[name] = Array(text_of(pixels), array.shape, array.stype, array.data)


def in_the_serialisation(content: RecordDict, pixels: Pixels) -> None:
    record, name, array = _first(content)
    record[name] = Array(array.dtype, array.shape, text_of(pixels), array.data)


def in_the_shape(content: RecordDict, pixels: Pixels) -> None:
    record, name, array = _first(content)
    record[name] = Array(array.dtype, tuple(pixels.reshape(-1).tolist()), array.stype, array.data)


def in_a_nan(content: RecordDict, pixels: Pixels) -> None:
    record, name, array = _first(content)
    start = array.data.index(b"\n") + 1
    payload = b"".join(bytes(pair) + b"\xc0\x7f" for pair in pixels.reshape(-1, 2))
    data = array.data[:start] + payload + array.data[start + len(payload) :]
    record[name] = Array(array.dtype, array.shape, array.stype, data[: len(array.data)])


PACKINGS = (
    extra_record,
    extra_setting,
    list_of_numbers,
    extra_number,
    behind_the_values,
    in_the_header,
    in_the_type,
    in_the_serialisation,
    in_the_shape,
    in_a_nan,
)


@pytest.mark.parametrize("misuse", PACKINGS, ids=lambda misuse: misuse.__name__)
def test_no_image_leaves_in_records_that_are_misused(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, misuse: Callable[[RecordDict, Pixels], None]
) -> None:
    honest = door_module.pack_update

    def pack(update: SiteUpdate) -> RecordDict:
        content = honest(update)
        misuse(content, ward.secret)
        return content

    monkeypatch.setattr(door_module, "pack_update", pack)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    refusal = unpack_refusal(replies[1].content)
    assert refusal is not None
    assert refusal.code == "guard"


# --- Introductions, evaluations, errors, logs ----------------------------------------------
INTRODUCTIONS: dict[str, Callable[[SiteInfo, Pixels], SiteInfo]] = {
    "notes": lambda i, p: replace(i, notes=(text_of(p),)),
    "name": lambda i, p: replace(i, site=text_of(p)),
    "version": lambda i, p: replace(i, wardround=text_of(p)),
    "digest": lambda i, p: replace(i, digest=text_of(p)),
    "examinations": lambda i, p: replace(i, examinations=as_count(p)),
    "base": lambda i, p: replace(i, base=as_float(p)),
}


@pytest.mark.parametrize("name", INTRODUCTIONS)
def test_no_image_leaves_in_an_introduction(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    honest = SiteSession.describe

    def describe(session: SiteSession, standalone: bool = False) -> SiteInfo:
        return INTRODUCTIONS[name](honest(session, standalone), ward.secret)

    monkeypatch.setattr(SiteSession, "describe", describe)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    refused = unpack_refusal(replies[0].content) is not None
    assert refused == (name != "notes")  # notes are left out, the rest is refused


@pytest.mark.parametrize("field", ["metrics", "seconds", "site", "run"])
def test_no_image_leaves_in_an_evaluation(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    honest, secret = SiteSession.evaluate, ward.secret
    values: dict[str, object] = {
        "metrics": SiteValues(20, {"loss": as_float(secret)}),
        "seconds": as_float(secret),
        "site": text_of(secret),
        "run": secret.tobytes().hex(),
    }

    def evaluate(session: SiteSession, instruction: Instruction) -> SiteEvaluation:
        return replace(honest(session, instruction), **{field: values[field]})  # type: ignore[arg-type]

    monkeypatch.setattr(SiteSession, "evaluate", evaluate)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    if field != "seconds":
        assert all(unpack_refusal(reply.content) for reply in replies[2:])


@pytest.mark.parametrize("kind", [RuntimeError, DataError, KeyError, OSError])
def test_no_image_leaves_in_the_text_of_an_exception(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fail(*arguments: object) -> None:
        raise kind(text_of(ward.secret))

    for method in ("describe", "train", "evaluate"):
        monkeypatch.setattr(SiteSession, method, fail)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    for reply in replies:
        assert not reply.has_error()  # Flower would send the text
        refusal = unpack_refusal(reply.content)
        assert refusal is not None
        assert refusal.code == ("data" if kind is DataError else "internal")
        assert refusal.code in REFUSAL_CODES
        assert refusal.reason == ""


def test_no_image_leaves_in_the_name_of_an_exception(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = type(text_of(ward.secret), (Exception,), {})

    def fail(*arguments: object) -> None:
        raise named

    monkeypatch.setattr(SiteSession, "train", fail)
    assert leaks(ward, ward.say_everything()) == 0


def test_what_training_code_writes_to_a_log_or_prints_stays_at_the_site(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        for name in ("wardround.client", "flwr", ""):
            logging.getLogger(name).error("%s", text_of(ward.secret))
        print(text_of(ward.secret))  # noqa: T201 # the point of this test
        return honest(session, *asked)

    monkeypatch.setattr(SiteSession, "train", train)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    assert unpack_refusal(replies[1].content) is None


def test_a_site_that_renames_itself_after_an_image_says_nothing(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        settings = session.site.settings.model_copy(update={"name": text_of(ward.secret)})
        session.site = replace(session.site, settings=settings)
        return honest(session, *asked)

    monkeypatch.setattr(SiteSession, "train", train)
    try:
        assert leaks(ward, ward.say_everything()) == 0
    finally:
        close_sessions()


def test_an_honest_site_answers_and_none_of_its_images_is_on_the_wire(ward: Ward) -> None:
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    assert all(unpack_refusal(reply.content) is None for reply in replies)


def test_all_that_was_said_and_refused_stands_in_the_audit_log(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(read_log(ward.folder / "audit")))
    try_update(ward, monkeypatch, "extra array")
    entries = list(read_log(ward.folder / "audit"))[before:]
    assert [(e.event.kind, e.event.verdict) for e in entries] == [
        ("decision", "allow"),
        ("site-info", "allow"),
        ("refusal", "deny: guard"),
        ("evaluation", "allow"),
        ("evaluation", "allow"),
    ]
    assert all(entry.event.sha256 for entry in entries[1:])
    verify_log(ward.folder / "audit", open_public_key(ward.folder / "keys" / "site.pub"))


# --- The tests can fail, and what cannot be seen --------------------------------------------
def test_without_the_guard_the_image_is_found_on_the_wire(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "check_message", lambda *arguments: None)
    for name in ("extra array", "wrong shape", "array's name", "site name", "digest", "run"):
        with monkeypatch.context() as patch:
            assert leaks(ward, try_update(ward, patch, name)) > 0, name


def test_code_that_is_installed_to_betray_can_hide_an_image_in_a_parameter(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no look at numbers can tell from training; the guard's docstring says so."""
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        update = honest(session, *asked)
        image = {first_name(update): image_like(update, ward.secret, torch.float32)}
        return replace(update, parameters={**update.parameters, **image})

    monkeypatch.setattr(SiteSession, "train", train)
    replies = ward.say_everything()
    assert unpack_refusal(replies[1].content) is None
    assert leaks(ward, replies) > 0
