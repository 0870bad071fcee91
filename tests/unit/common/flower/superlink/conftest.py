"""A link's state with an empty roll of members, and a run on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.site_on_link import Roll, Site, start_run

from wardround.common.flower.local import claim_identity
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.object_store import ObjectSpool


@pytest.fixture
def roll() -> Roll:
    return Roll()


@pytest.fixture
def spool(tmp_path: Path) -> ObjectSpool:
    return ObjectSpool(tmp_path / "spool")


@pytest.fixture
def state(roll: Roll, spool: ObjectSpool) -> LinkState:
    return LinkState(roll, spool)


@pytest.fixture
def join(roll: Roll, state: LinkState) -> Callable[[str], Site]:
    def joined(name: str) -> Site:
        site = Site(ec.generate_private_key(ec.SECP384R1()), state)
        roll.members[site.public] = name
        return site

    return joined


@pytest.fixture
def run_id(state: LinkState) -> int:
    number = start_run(state)
    claim_identity(number)
    return number
