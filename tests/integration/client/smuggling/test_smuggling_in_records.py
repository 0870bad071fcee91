"""Packing code that misuses the records of a message: no image leaves."""

import base64
from collections.abc import Callable

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from tests.support.hospitals.watched_ward import Pixels, Ward, leaks, text_of

from wardround.client.egress.answers import training as door_module
from wardround.common.messages.replies import (
    SiteUpdate,
    unpack_refusal,
)


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
