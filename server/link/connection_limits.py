"""Who may hold how many connections: strangers, the invited and sites have places of their own.

Nobody is refused for want of a place. Whoever comes when a pool is full takes the place of the
oldest connection of whoever holds the most in it. So a flood pushes out itself, and a site whose
old connections are dead gets a new one. Strangers and the invited never take the places of sites.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from wardround.common.runtime.system.limits import most_open_files
from wardround.server.identity.pki import Identity

logger = logging.getLogger(__name__)
_OTHER_FILES = 64  # descriptors of the link for everything but sites: database, spool, studies
_LEAST_PLACES = 32
_OF_AN_INVITATION = 4
_IPV6_HOST_BITS = 64  # whoever has one address of such a network has all of them


@dataclass(slots=True, eq=False)
class Connection:
    """One connection.

    Attributes:
        address: Where it comes from.
        end: Ends it at once.
        leave: Gives its place back; it may be called twice.
    """

    address: str
    end: Callable[[], object]
    leave: Callable[[], None] = field(default=lambda: None)


class Pool:
    """The places of one kind of visitor."""

    def __init__(
        self, most: int, most_of_one: int, has_left: Callable[[str], None] = lambda _: None
    ) -> None:
        """Make an empty pool.

        Args:
            most: Connections in all, at least 1.
            most_of_one: Connections of one visitor, at least 1.
            has_left: Is told of a visitor whose last connection has ended.
        """
        self.most, self.most_of_one, self._has_left = most, most_of_one, has_left
        self._held: dict[str, dict[Connection, None]] = {}  # in the order in which they came

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def take(self, visitor: str, connection: Connection) -> None:
        """Give a connection a place; another one is ended for it where there is none."""
        connection.leave()
        mine = self._held.setdefault(visitor, {})
        mine[connection] = None
        connection.leave = lambda: self._leave(visitor, connection)
        if len(mine) > self.most_of_one:
            self._end_oldest(mine)
        elif len(self) > self.most:
            self._end_oldest(max(self._held.values(), key=len))

    def _leave(self, visitor: str, connection: Connection) -> None:
        mine = self._held.get(visitor, {})
        mine.pop(connection, None)
        if not mine and self._held.pop(visitor, None) is not None:
            self._has_left(visitor)

    @staticmethod
    def _end_oldest(mine: dict[Connection, None]) -> None:
        oldest = next(iter(mine))
        oldest.leave()
        oldest.end()


class Judge(Protocol):
    """Whose a client certificate (DER) is."""

    def check(self, peer_der: bytes) -> str | None:
        """Return the site whose certificate this is; None if it is no site's, or was revoked."""

    def check_invitation(self, peer_der: bytes) -> Identity | None:
        """Return the invitation whose certificate this is, None if it is none."""


class ConnectionLimits:
    """All connections of the public listener.

    Attributes:
        silent: Those that said nothing yet, by address.
        strangers: Those that did not show a certificate yet, by address; also those that are told
            that they may not enter, until they are closed. Silence does not take their places: an
            honest client speaks first, and at once.
        invited: By invitation.
        sites: By site; all its certificates count together, wherever it calls from.
        left: Sites that had connections and have none now, and since when (seconds since 1970). A
            process that is killed leaves at once; its heartbeat is missed half a minute later.
    """

    def __init__(self, judge: Judge, places: int, most_of_a_site: int) -> None:
        """Divide places: an eighth for silence, one for strangers, a sixteenth for the invited."""
        self._judge = judge
        strangers, invited = places // 8, places // 16
        # Half of them for one address: hospitals may share one behind a proxy.
        self.silent = Pool(strangers, strangers // 2)
        self.strangers = Pool(strangers, strangers // 2)
        self.invited = Pool(invited, _OF_AN_INVITATION)
        self.left: dict[str, float] = {}
        self.sites = Pool(places - 2 * strangers - invited, most_of_a_site, self._note_left)

    def enter(self, connection: Connection) -> None:
        """Give a connection a place before anything came over it."""
        self.silent.take(network_of(connection.address), connection)

    def hear(self, connection: Connection) -> None:
        """Give a connection over which something came a place among strangers."""
        self.strangers.take(network_of(connection.address), connection)

    def recognise(self, connection: Connection, peer_der: bytes) -> bool:
        """Count a connection as its certificate's; False if nothing may pass with that."""
        site = self._judge.check(peer_der)
        if site is not None:
            self.sites.take(site, connection)
            self.left.pop(site, None)
            return True
        invitation = self._judge.check_invitation(peer_der)
        if invitation is not None:
            self.invited.take(invitation.serial, connection)
            return True
        return False

    def _note_left(self, site: str) -> None:
        self.left[site] = time.time()


def network_of(address: str) -> str:
    """Return what counts as one visitor: an IPv4 address, or a network of IPv6 (64 bits)."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> _IPV6_HOST_BITS:x}::"


def places_for(most_connections: int) -> int:
    """Let this process open as many files as the system allows it, and return what is left.

    Returns:
        How many connections there can be: ``most_connections``, or fewer where the system's limit
        is lower, which is logged; at least 32.
    """
    soft = most_open_files()
    if soft is None or soft - _OTHER_FILES >= most_connections:
        return most_connections
    places = max(soft - _OTHER_FILES, _LEAST_PLACES)
    logger.warning(
        "most_connections = %d, but the system allows this process %d open files, so there are "
        "places for %d: raise LimitNOFILE (systemd) or 'ulimit -n'",
        most_connections,
        soft,
        places,
    )
    return places
