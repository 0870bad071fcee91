"""A receiver hears nobody but whom it allows, and takes no more than one object may be."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import Dataset
from tests.support.clinic.dicom_series import make_series

from wardround.client.clinic.pacs.archive import PacsAwayError, PacsError
from wardround.client.clinic.pacs.receiver import receiving
from wardround.client.clinic.pacs.settings import LimitsTable, Peer, ReceiverTable
from wardround.common.errors import InputError
from wardround.simulations.local_federation.processes import free_port

pynetdicom = pytest.importorskip("pynetdicom")
OWN, SENDER = "WARDROUND", "SENDER"
LIMITS = LimitsTable(object_megabytes=1, free_gigabytes=0)


def _table(address: str = "127.0.0.1") -> ReceiverTable:
    return ReceiverTable(port=free_port(), allowed=(Peer(title=SENDER, address=address),))


@pytest.fixture
def taken() -> list[Dataset]:
    return []


@pytest.fixture
def port(taken: list[Dataset]) -> Iterator[int]:
    def take(dataset: Dataset) -> int:
        taken.append(dataset)
        if len(taken) == 2:
            msg = "no room"
            raise PacsAwayError(msg)
        if len(taken) == 3:
            msg = "not wanted"
            raise PacsError(msg)
        return 0

    with receiving(Path("/"), _table(), LIMITS, take) as number:
        yield number


def _associate(port: int, own: str = SENDER, called: str = OWN) -> object:
    entity = pynetdicom.AE(ae_title=own)
    entity.add_requested_context("1.2.840.10008.1.1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1")
    return entity.associate("127.0.0.1", port, ae_title=called)


def test_objects_are_taken_and_what_went_wrong_is_answered(port: int, taken: list[Dataset]) -> None:
    link = _associate(port)
    answers = [link.send_c_store(one).Status for one in make_series(1, slices=4)]  # type: ignore[attr-defined]
    link.release()  # type: ignore[attr-defined]
    assert answers == [0x0000, 0xA700, 0xC000, 0x0000]
    assert [one.SOPInstanceUID for one in taken[:1]] == ["1.2.3.1.2.1"]
    assert taken[0].file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(("own", "called"), [("STRANGER", OWN), (SENDER, "OTHER")])
def test_a_wrong_title_is_rejected(port: int, own: str, called: str) -> None:
    link = _associate(port, own, called)
    assert link.is_rejected  # type: ignore[attr-defined]


def test_another_address_is_hung_up_on() -> None:
    def take(_: Dataset) -> int:
        raise AssertionError

    with (
        receiving(Path("/"), _table("192.0.2.1"), LIMITS, take) as port,
        socket.create_connection(("127.0.0.1", port), 5) as link,
    ):
        link.settimeout(5)
        assert link.recv(1) == b""


@pytest.mark.parametrize("begin", [b"\x01\x00", b"\x04\x00"])
def test_a_message_that_announces_gigabytes_is_cut_off(port: int, begin: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as link:
        link.settimeout(5)
        link.sendall(begin + struct.pack(">I", 2**32 - 1) + b"\0" * 1000)
        started = time.monotonic()
        with suppress(ConnectionError):
            while link.recv(1000):
                pass
        assert time.monotonic() - started < 4


def test_an_object_larger_than_the_limit_is_cut_off(port: int, taken: list[Dataset]) -> None:
    (large,) = make_series(1, slices=1)
    large.PixelData = b"\0" * (20 * 2**20)
    link = _associate(port)
    assert "Status" not in link.send_c_store(large)  # type: ignore[attr-defined]
    assert taken == []


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        table = ReceiverTable(port=number, allowed=(Peer(title=SENDER, address="127.0.0.1"),))
        with (
            pytest.raises(InputError, match="cannot listen"),
            receiving(Path("/"), table, LIMITS, lambda _: 0),
        ):
            pass
