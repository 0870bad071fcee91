"""Who holds places, and whose connection ends when there is none left."""

import resource
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from wardround.server.identity.pki import Identity
from wardround.server.link.connection_limits import (
    Connection,
    ConnectionLimits,
    Pool,
    network_of,
    places_for,
)

DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Ended:
    """Makes connections, and writes down which were ended."""

    names: list[str]

    def connection(self, name: str, address: str = "10.0.0.1") -> Connection:
        return Connection(address, lambda: self.names.append(name))


@pytest.fixture
def ended() -> Ended:
    return Ended([])


def test_a_visitor_with_too_many_loses_the_oldest(ended: Ended) -> None:
    pool = Pool(10, 2)
    for name in ("a", "b", "c", "d"):
        pool.take("mallory", ended.connection(name))
    pool.take("north", ended.connection("e"))
    assert ended.names == ["a", "b"]
    assert len(pool) == 3


def test_a_full_pool_takes_from_whoever_has_most(ended: Ended) -> None:
    pool = Pool(4, 4)
    pool.take("north", ended.connection("north"))
    for name in ("a", "b", "c", "d", "e"):
        pool.take("mallory", ended.connection(name))
    pool.take("south", ended.connection("south"))
    assert ended.names == ["a", "b", "c"]
    assert len(pool) == 4


def test_of_many_with_one_each_the_first_goes(ended: Ended) -> None:
    pool = Pool(3, 3)
    for name in ("a", "b", "c", "d"):
        pool.take(f"host {name}", ended.connection(name))
    assert ended.names == ["a"]


def test_a_place_is_given_back_once(ended: Ended) -> None:
    pool = Pool(1, 1)
    first = ended.connection("a")
    pool.take("north", first)
    first.leave()
    first.leave()
    pool.take("north", ended.connection("b"))
    assert (ended.names, len(pool)) == ([], 1)


class Judge:
    def check(self, peer_der: bytes) -> str | None:
        return {b"north's": "north", b"south's": "south"}.get(peer_der)

    def check_invitation(self, peer_der: bytes) -> Identity | None:
        return Identity("west", "invitation", "42", DAY, DAY) if peer_der == b"invited" else None


def test_known_sites_of_one_address_are_counted_as_themselves(ended: Ended) -> None:
    limits = ConnectionLimits(Judge(), 64, 4)
    for number in range(4):
        for site in (b"north's", b"south's"):
            connection = ended.connection(f"{site!r} {number}")
            limits.enter(connection)
            assert limits.recognise(connection, site)
    assert (len(limits.strangers), len(limits.sites), ended.names) == (0, 8, [])
    for number in range(100):
        limits.enter(speaking := ended.connection(f"stranger who speaks {number}"))
        limits.hear(speaking)
    for number in range(100):
        limits.enter(ended.connection(f"stranger {number}"))
    # Half of an eighth, each: they all have one address.
    assert (len(limits.silent), len(limits.strangers), len(limits.sites)) == (4, 4, 8)
    assert all(name.startswith("stranger") for name in ended.names)


def test_a_site_has_left_when_its_last_connection_ended_and_is_back_with_the_next(
    ended: Ended,
) -> None:
    limits = ConnectionLimits(Judge(), 64, 4)
    first, second = ended.connection("first"), ended.connection("second")
    for one in (first, second):
        assert limits.recognise(one, b"north's")
    first.leave()
    assert limits.left == {}
    second.leave()
    second.leave()
    assert [*limits.left] == ["north"]
    assert limits.recognise(ended.connection("third"), b"north's")
    assert limits.left == {}


def test_silence_takes_no_place_of_who_speaks(ended: Ended) -> None:
    limits = ConnectionLimits(Judge(), 64, 4)
    honest = ended.connection("honest")
    limits.enter(honest)
    limits.hear(honest)
    for number in range(100):
        limits.enter(ended.connection(f"silent {number}"))
    assert "honest" not in ended.names
    assert len(limits.strangers) == 1


def test_the_invited_and_the_refused_take_no_places_of_sites(ended: Ended) -> None:
    limits = ConnectionLimits(Judge(), 64, 4)
    for number in range(20):
        guest, stranger = ended.connection(f"guest {number}"), ended.connection(f"s {number}")
        for one in (guest, stranger):
            limits.enter(one)
            limits.hear(one)
        assert limits.recognise(guest, b"invited")
        assert not limits.recognise(stranger, b"revoked")
    assert len(limits.sites) == 0
    assert len(limits.invited) == 4
    assert len(limits.strangers) <= 4  # where the refused stay until they are gone


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:0:1:aaaa::1", "20010db800000001::"),
        ("2001:db8:0:1:bbbb::2%eth0", "20010db800000001::"),
        ("what is this", "what is this"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_visitor(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("hard", "wanted", "places"),
    [(4096, 1024, 1024), (256, 1024, 192), (64, 1024, 32), (resource.RLIM_INFINITY, 99, 99)],
)
def test_there_are_as_many_places_as_the_system_has_files_for(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, hard: int, wanted: int, places: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert places_for(wanted) == places
    assert asked == [(hard, hard)]
    assert ("raise LimitNOFILE" in caplog.text) == (places < wanted)
