"""The contract with Flower's SuperLink: which sites are there."""
# ruff: noqa: TID251 - a contract with internals names them

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from tests.support.link.site_on_link import MemberLookup, Site

from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.object_store import DiskObjectStore


def test_a_node_is_who_the_list_of_members_says_and_keeps_its_number_over_a_restart(
    members: MemberLookup,
    disk_store: DiskObjectStore,
    state: LinkState,
    join: Callable[[str], Site],
) -> None:
    site = join("north")
    assert site.activate()
    assert [node.name for node in state.connected_sites()] == ["north"]
    assert LinkState(members, disk_store).get_node_id_by_public_key(site.public) == site.node_id
    stranger = public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    assert state.get_node_id_by_public_key(stranger) is None


def test_a_second_process_of_a_site_is_not_let_in_while_the_first_is_there(
    join: Callable[[str], Site],
) -> None:
    site = join("north")
    assert site.activate()
    assert not site.activate()
    site.state.deactivate_node(site.node_id)
    assert site.activate()


def test_a_site_that_asks_for_messages_is_there_without_a_new_activation(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    state.get_node_id_by_public_key(site.public)  # as after a restart of the link
    assert state.get_nodes(run_id) == set()
    state.note_presence(site.node_id)
    assert state.get_nodes(run_id) == {site.node_id}
