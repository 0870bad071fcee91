"""A link's state with an empty roll of members, and a run on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.link.site_on_link import MemberLookup, Site, start_run

from wardround.common.flower.site_grid import claim_identity
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.object_store import DiskObjectStore


@pytest.fixture
def members() -> MemberLookup:
    return MemberLookup()


@pytest.fixture
def disk_store(tmp_path: Path) -> DiskObjectStore:
    return DiskObjectStore(tmp_path / "spool")


@pytest.fixture
def state(members: MemberLookup, disk_store: DiskObjectStore) -> LinkState:
    return LinkState(members, disk_store)


@pytest.fixture
def join(members: MemberLookup, state: LinkState) -> Callable[[str], Site]:
    def joined(name: str) -> Site:
        site = Site(ec.generate_private_key(ec.SECP384R1()), state)
        members.members[site.public] = name
        return site

    return joined


@pytest.fixture
def run_id(state: LinkState) -> int:
    number = start_run(state)
    claim_identity(number)
    return number
