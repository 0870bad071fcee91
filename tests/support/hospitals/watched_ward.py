"""A hospital whose training code tries to get an image out, and how one is found on the wire."""

import base64
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from numpy.typing import NDArray
from PIL import Image

from wardround.client.app import app, open_session
from wardround.client.session.session import SiteSession
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import to_bytes
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.instructions import (
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Instruction,
    new_run,
    pack_instruction,
)
from wardround.common.messages.replies import (
    SiteUpdate,
)
from wardround.common.metrics.sums import SiteValues
from wardround.common.parameters.schema import read_parameters
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


def leaks(ward: Ward, messages: list[Message]) -> int:
    """Return how many of the site's images and rows, in any encoding, stand in what travelled."""
    wire = b"\n".join(on_the_wire(message) for message in messages)
    beginnings = {wire[place : place + SIDE] for place in range(len(wire))}
    return sum(needle[:SIDE] in beginnings and needle in wire for needle in ward.needles)


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
